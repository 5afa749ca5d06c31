"""Figures: a value, how many items it was measured on, and where the true value lies with a chance of 95 %.

Written to JSON as ``{"value": 0.87, "n": 400, "interval": [0.83, 0.9]}``. Rates of errors and means are
resampled by item (Efron's bootstrap, 1979, percentiles), so that a sentence is either in or out as a whole.
Shares have Wilson's interval (1927), which does not shrink to nothing where all items are right.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from muomni.evaluate.text_scores import edit_distance

Figure = dict[str, Any]

RESAMPLES = 1000
Z = 1.959964  # standard deviations that hold 95 % of a normal distribution


def figure(value: float, n: int, low: float, high: float) -> Figure:
    """The JSON form."""
    return {"value": round(value, 6), "n": n, "interval": [round(low, 6), round(high, 6)]}


def share(outcomes: Sequence[bool]) -> Figure:
    """How many of some items are so.

    Raises:
        ValueError: if there is no item.
    """
    n = len(outcomes)
    if not n:
        raise ValueError("a share of nothing")
    p = sum(outcomes) / n
    centre, spread = p + Z**2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    low, high = ((centre + sign * spread) / (1 + Z**2 / n) for sign in (-1, 1))
    return figure(p, n, min(p, max(0.0, low)), max(p, min(1.0, high)))


def ratio(
    parts: Sequence[float], wholes: Sequence[float], seed: int, scale: Callable[[float], float] = float
) -> Figure:
    """Sum of the parts over the sum of the wholes, such as errors over characters.

    Args:
        parts: of each item.
        wholes: of each item.
        seed: of the resampling.
        scale: a growing function that the value and the interval's ends go through, such as ``exp``.

    Raises:
        ValueError: if the numbers differ or the wholes are nothing.
    """
    top, bottom = np.asarray(parts, np.float64), np.asarray(wholes, np.float64)
    if len(top) != len(bottom) or not bottom.sum() > 0:
        raise ValueError(f"{len(top)} parts of {len(bottom)} wholes that sum to {bottom.sum()}")
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(top), size=(RESAMPLES, len(top)))
    totals = np.maximum(bottom[picks].sum(1), 1e-12)
    low, high = np.percentile(top[picks].sum(1) / totals, [2.5, 97.5])
    return figure(scale(float(top.sum() / bottom.sum())), len(top), scale(float(low)), scale(float(high)))


def mean(values: Sequence[float], seed: int) -> Figure:
    """The mean of some items; raises ValueError if there is none."""
    return ratio(values, [1.0] * len(values), seed)


def shown(figure: Figure) -> str:
    """A figure as a line of text."""
    low, high = figure["interval"]
    return f"{figure['value']:.4f}  ({low:.4f} to {high:.4f}, n {figure['n']})"


def character_errors(references: Sequence[str], hypotheses: Sequence[str], seed: int) -> Figure:
    """Character error rate: edits over the references' characters.

    Raises:
        ValueError: if the numbers differ or the references are empty.
    """
    edits = [edit_distance(r, h) for r, h in zip(references, hypotheses, strict=True)]
    return ratio(edits, [len(r) for r in references], seed)


def word_errors(references: Sequence[str], hypotheses: Sequence[str], seed: int) -> Figure:
    """Word error rate: edits over the references' words; raises as `character_errors` does."""
    edits = [edit_distance(r.split(), h.split()) for r, h in zip(references, hypotheses, strict=True)]
    return ratio(edits, [len(r.split()) for r in references], seed)


def nearer(text: str, new: str, old: str) -> int:
    """Which of two texts a transcript is nearer to: 1 for the new one, -1 for the old one, 0 for neither.

    Distances are edits over the length of the text that is compared with.
    """
    to_new, to_old = (edit_distance(text, other) / max(1, len(other)) for other in (new, old))
    return int(to_new < to_old) - int(to_new > to_old)
