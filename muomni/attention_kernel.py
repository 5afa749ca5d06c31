"""Attention of one new position in each row over a cache, as a single GPU kernel.

PyTorch's kernels for this are made for long sequences or read a mask over the whole cache. Here each query head of each
row is a program that walks through the positions that are filled, and no further, with a running softmax (Milakov and
Gimelshein, 2018). It also writes the new key and value. Written in Triton, which PyTorch brings along on Linux.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 128  # positions that a program reads at once


@triton.jit
def attend(  # type: ignore[no-untyped-def]
    qkv,
    kv,
    at,
    out,
    row_size,
    scale,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One query head of one row; see `attend_and_store`."""
    head, row = tl.program_id(0), tl.program_id(1)
    key_head = head // (HEADS // KEYS)
    position = tl.load(at + row).to(tl.int32)
    channel = tl.arange(0, PADDED)
    real = channel < WIDTH
    mine = qkv + row * (HEADS + 2 * KEYS) * WIDTH + channel
    query = tl.load(mine + head * WIDTH, mask=real, other=0.0) * scale
    new_key = tl.load(mine + (HEADS + key_head) * WIDTH, mask=real, other=0.0)
    new_value = tl.load(mine + (HEADS + KEYS + key_head) * WIDTH, mask=real, other=0.0)
    places = kv + row.to(tl.int64) * row_size + key_head * WIDTH + channel
    step = 2 * KEYS * WIDTH  # from one position to the next
    if head % (HEADS // KEYS) == 0:  # nobody reads them from there in this launch
        tl.store(places + position * step, new_key, mask=real)
        tl.store(places + position * step + KEYS * WIDTH, new_value, mask=real)
    most = tl.sum(query * new_key, 0)  # largest score so far; chances are relative to it
    total = tl.exp(most - most)
    mixed = new_value
    first = position * 0
    while first < position:
        where = first + tl.arange(0, BLOCK)
        seen = where < position
        rows = places[None, :] + where[:, None] * step
        both = seen[:, None] & real[None, :]
        key = tl.load(rows, mask=both, other=0.0)
        value = tl.load(rows + KEYS * WIDTH, mask=both, other=0.0)
        score = tl.where(seen, tl.sum(key * query[None, :], 1), -float("inf"))
        top = tl.maximum(most, tl.max(score, 0))
        shrink, chance = tl.exp(most - top), tl.exp(score - top)
        total = total * shrink + tl.sum(chance, 0)
        mixed = mixed * shrink + tl.sum(chance[:, None] * value, 0)
        most = top
        first += BLOCK
    tl.store(out + (row * HEADS + head) * WIDTH + channel, mixed / total, mask=real)


def attend_and_store(qkv: Tensor, kv: Tensor, at: Tensor, heads: int) -> Tensor:
    """Let each row's new position see itself and all before it.

    Args:
        qkv: queries, keys and values of the new positions, ``[B, (H + 2 K) h]`` float32.
        kv: a layer's cache ``[B, P, 2, K, h]`` float32, contiguous; takes the new keys and values.
        at: the position of each, ``[B]`` int64.
        heads: H.

    Returns:
        ``[B, H h]`` float32.
    """
    batch, _, _, keys, width = kv.shape
    out = torch.empty(batch, heads * width, device=kv.device)
    attend[(heads, batch)](
        qkv,
        kv,
        at,
        out,
        kv.stride(0),
        width**-0.5,
        HEADS=heads,
        KEYS=keys,
        WIDTH=width,
        PADDED=triton.next_power_of_2(width),
        BLOCK=BLOCK,
        num_warps=8,
    )
    return out
