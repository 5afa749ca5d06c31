"""Several processes under ``torchrun``: each takes other micro-batches, gradients are averaged.

Process r of n takes the micro-steps r, r + n, r + 2n, ..., so two processes with one micro-batch each see
just what one process with two sees.
"""

import os
from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world() -> tuple[int, int]:
    """(this process's rank, number of processes); (0, 1) outside ``torchrun``."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def join(device: torch.device) -> None:
    """Connect to the other processes, if there are any."""
    if world()[1] > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def wait() -> None:
    """Let every process get here before any goes on."""
    if world()[1] > 1:
        dist.barrier()


def average_gradients(parameters: Sequence[nn.Parameter], loss: Tensor) -> None:
    """Replace gradients and a loss by their means over all processes, in place, in one message."""
    if world()[1] == 1:
        return
    for p in parameters:  # a part that this process's batch did not touch still takes part in the mean
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    tensors = [loss, *(p.grad for p in parameters if p.grad is not None)]
    flat = torch.cat([tensor.reshape(-1).float() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world()[1]
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def share_buffers(modules: Iterable[nn.Module]) -> None:
    """Give every process the first one's values of what learns by moving averages and not by gradients."""
    if world()[1] > 1:
        for module in modules:
            still = (p for p in module.parameters() if not p.requires_grad)
            for tensor in (*still, *module.buffers()):
                dist.broadcast(tensor.detach(), 0)


def leave() -> None:
    """Disconnect."""
    if world()[1] > 1 and dist.is_initialized():
        dist.destroy_process_group()
