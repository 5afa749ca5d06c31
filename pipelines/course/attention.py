"""Where a transformer looks: the weights that `scaled_dot_product_attention` computes and does not tell."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from muomni.layers import Attention, Stack, rotate


@torch.no_grad()
def weights(attention: Attention, x: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
    """Softmax of queries and keys, in every head ``[B, H, T, T]`` of input ``[B, T, D]`` without padding."""
    b, t, _ = x.shape

    def split(matrix: nn.Linear, heads: int) -> Tensor:
        parts = matrix(x).view(b, t, heads, attention.head_width).transpose(1, 2)
        turned = rotate(parts, *rope) if rope is not None else parts
        return turned.repeat_interleave(attention.heads // heads, dim=1)

    q, k = split(attention.query, attention.heads), split(attention.key, attention.kv_heads)
    scores = q @ k.transpose(-1, -2) / attention.head_width**0.5
    if attention.causal:
        scores = scores.masked_fill(torch.ones(t, t, dtype=torch.bool).triu(1), -torch.inf)
    return scores.softmax(-1)


@contextmanager
def watched(stack: Stack) -> Iterator[list[Tensor]]:
    """While it lasts, the weights of each layer ``[B, H, T, T]`` join the list as the stack is called."""
    found: list[Tensor] = []

    def before(module: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(module, Attention)
        found.append(weights(module, args[0], args[1]))

    handles = [m.register_forward_pre_hook(before) for m in stack.modules() if isinstance(m, Attention)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
