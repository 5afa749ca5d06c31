"""What the exported model gives, and what it keeps between calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput


@dataclass
class MuOmniOutput(ModelOutput):
    """What a forward pass gives.

    Attributes:
        loss: mean cross-entropy in nats, if there are labels.
        logits: ``[B, T, V]``, or of the last positions only.
        cache: what was read, for the next call.
        hidden_states: the Thinker's states ``[B, T, D]`` after its last normalisation, if asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    cache: Any = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class Speech:
    """An answer in speech.

    Attributes:
        sequences: prompt and answer ``[1, T]`` int64; None for a text that was given.
        waveform: float32 ``[samples]`` in [-1, 1]; no samples if nothing in the text can be said.
        codes: of the codec, ``[T, Q]`` int64, 50 a second; None for a text that was given.
        sampling_rate: samples a second.
    """

    sequences: Tensor | None
    waveform: Tensor
    codes: Tensor | None
    sampling_rate: int


class Behind:
    """transformers' cache for the Thinker's layers, as `read_behind` takes it."""

    length = 0

    def __init__(self, cache: Any) -> None:
        self.cache = cache

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put new keys and values ``[B, K, T, h]`` behind the others, and give all of them."""
        if self.cache is None:
            return k, v
        keys, values = self.cache.update(k, v, layer)
        return keys, values


def joined(waves: Sequence[Tensor]) -> Tensor:
    """Pieces of sound one after the other."""
    return torch.cat(list(waves)) if waves else torch.zeros(0)


def keep_buffers(model: nn.Module) -> None:
    """Have all buffers saved and loaded with the weights."""
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, buffer, persistent=True)
