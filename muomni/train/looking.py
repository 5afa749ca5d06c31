"""How a training looks at its model without changing it or its own random state."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from muomni.device import Device


@contextlib.contextmanager
def looking(modules: Mapping[str, nn.Module], device: Device) -> Iterator[None]:
    """Eval mode, no gradients, autocast, and a random state of its own that is the same each time."""
    with (
        torch.random.fork_rng([device.device] if device.device.type == "cuda" else []),
        torch.no_grad(),
        device.autocast(),
    ):
        torch.manual_seed(0)
        for module in modules.values():
            module.eval()
        yield
    for module in modules.values():
        module.train()
