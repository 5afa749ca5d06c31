"""Micro-batches cut into parts by samples, each part with its weight in the mean that the loss is.

A part keeps no more padding than its own longest sample needs, where padding changes nothing.
"""

from torch import Tensor


def runs(count: int, parts: int) -> list[slice]:
    """So many samples in so many runs of nearly equal length, or one a sample."""
    parts = max(1, min(count, parts))
    return [slice(count * part // parts, count * (part + 1) // parts) for part in range(parts)]


def longest(real: Tensor) -> int:
    """Positions that rows need, of which real ones are True ``[B, T]``; at least 1."""
    used = real.any(0).nonzero()
    return int(used[-1]) + 1 if len(used) else 1


def share(part: Tensor, whole: Tensor) -> float:
    """How much of what counts in the whole, True or a number, a part has."""
    return float(part.sum()) / max(1.0, float(whole.sum()))


def split_tokens(batch: tuple[Tensor, Tensor], parts: int) -> list[tuple[tuple[Tensor, Tensor], float]]:
    """Inputs and targets ``[B, T]``, whose loss is a mean over the targets that count."""
    inputs, targets = batch
    counts = targets != -100
    return [((inputs[rows], targets[rows]), share(counts[rows], counts)) for rows in runs(len(inputs), parts)]
