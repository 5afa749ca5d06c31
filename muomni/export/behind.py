"""Reading behind what was read before, with the cache and the mask from outside.

`muomni.layers.Stack.forward` reads one text from its beginning, or a row of a cache of its own. transformers and
onnxruntime bring caches of theirs, and rows with padding.
"""

from typing import Any

import torch
from torch import Tensor

from muomni.layers import Stack


def places_behind(past: int, x: Tensor) -> Tensor:
    """The places of ``x`` ``[B, T, D]`` behind ``past`` others, ``[T]`` int64; not cut out, since exporters ask why."""
    return torch.arange(x.shape[1], device=x.device) + past


def real_positions(real: Tensor, places: Tensor) -> Tensor:
    """Positions at some places ``[T]`` if only real ones count, ``[B, past + T]`` bool; ``[B, T]`` int64."""
    return (real.long().cumsum(1) - 1).clamp_min(0)[:, places]


def causal_mask(real: Tensor, places: Tensor) -> Tensor:
    """What some places ``[T]`` see, ``[B, 1, T, past + T]`` bool: real ones before them, and themselves.

    Padding sees itself too, so that its softmax stays finite.
    """
    every, own = torch.arange(real.shape[1], device=real.device), places[:, None]
    return ((real[:, None] & (every <= own)) | (every == own))[:, None]


def read_behind(stack: Stack, x: Tensor, positions: Tensor, mask: Tensor | None, cache: Any) -> Tensor:
    """Run a causal stack.

    Args:
        stack: of blocks with rotary positions.
        x: ``[B, T, D]``.
        positions: ``[B, T]`` int64.
        mask: ``[B, 1, T, past + T]``, True where a key may be seen, or None for all, if T is 1.
        cache: as `muomni.layers.KVCache`, but its `length` is always 0: to the attention it looks empty, so that it
            takes the mask that it is given.

    Returns:
        Normalised states ``[B, T, D]``.
    """
    rope = (stack.cos[positions][:, None], stack.sin[positions][:, None])  # [B, 1, T, h / 2]
    for layer, block in enumerate(stack.blocks):
        x = block(x, rope, mask, cache, layer)
    return stack.norm(x)
