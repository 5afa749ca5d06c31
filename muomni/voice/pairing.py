"""Which frame of the old voice goes with which of the person's, where both say the same sentence.

The old voice says the sentence at a pace of its own; the two are matched by dynamic time warping (Sakoe and Chiba,
1978). For that, sounds have to be comparable across voices. At first each voice's cepstra are standardised by
themselves. The pairs that this gives teach a linear map from the old voice to the person, frames are matched again
after it, and so on, as is usual in voice conversion (Stylianou et al., 1998). The old voice's own way through the text
then says which character each of the person's frames is on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.functional import create_dct

from muomni.alignment import monotone

FIRST, CEPSTRA = 13, 24  # coefficients that are compared at first, and those that the map makes
REACH = 3  # frames on either side from which the map makes one
RIDGE = 300.0  # how strongly the map is kept small
ROUNDS = 4
# Frames of the old voice to go on for one of the person, with what that costs beside the distance.
STEPS = ((0, 0.3), (1, 0.0), (2, 0.15), (3, 0.6))
FREE, STRAY = 0.15, 5.0  # share of a sentence by which the two may differ at no cost, and the cost of the rest


@dataclass(frozen=True)
class Pair:
    """A sentence in both voices.

    Attributes:
        old: log-mel of the old voice ``[S, M]`` at 50 Hz.
        frames: ``[T]`` int64, for each frame of the person the old voice's.
        distance: between the two after the map, mean over frames.
    """

    old: Tensor
    frames: Tensor
    distance: float


def cepstra(mel: Tensor, number: int) -> Tensor:
    """Log-mel ``[T, M]`` to its first cepstral coefficients ``[T, number]``: the spectrum's outline, not the pitch."""
    return mel @ create_dct(number, mel.shape[-1], "ortho").to(mel)


def surrounded(x: Tensor) -> Tensor:
    """Each frame of ``[T, D]`` with its neighbours and a one, ``[T, (2 REACH + 1) D + 1]``."""
    wide = F.pad(x.T[None], (REACH, REACH), mode="replicate")[0].T
    return torch.cat([*(wide[i : i + len(x)] for i in range(2 * REACH + 1)), torch.ones(len(x), 1)], dim=1)


def linear_map(x: Tensor, y: Tensor) -> Tensor:
    """Weights ``[D, E]`` by which ``x`` ``[N, D]`` comes nearest to ``y`` ``[N, E]`` (ridge regression)."""
    scale = x.square().mean(0).sqrt().clamp_min(1e-3)
    x = x / scale
    return torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1]), x.T @ y) / scale[:, None]


def warped(distance: np.ndarray) -> np.ndarray:
    """The cheapest way through two sentences (dynamic programming).

    Args:
        distance: ``[T, S]`` between each frame of the one and of the other.

    Returns:
        ``[T]``, for each frame of the one that of the other; it never goes back.
    """
    frames, width = distance.shape
    best, came = np.full(width, np.inf), np.zeros((frames, width), np.int64)
    best[0] = distance[0, 0]
    for t in range(1, frames):
        reached = np.full((len(STEPS), width), np.inf)
        for row, (step, cost) in enumerate(STEPS):
            reached[row, step:] = best[: width - step] + cost
        choice = reached.argmin(0)
        came[t] = np.array([step for step, _ in STEPS])[choice]
        best = reached.min(0) + distance[t]
    way, at = np.zeros(frames, np.int64), width - 1
    for t in range(frames - 1, -1, -1):
        way[t] = at
        at -= came[t, at]
    return way


def matched(old: Tensor, new: Tensor) -> tuple[Tensor, float]:
    """The frame of the old voice for each of the person's, by features ``[S, D]`` and ``[T, D]``; the mean distance."""
    even = torch.linspace(0, len(old) - 1, len(new)).round().long()  # as if both had the same pace
    distance = torch.cdist(new, old[even]) / new.shape[1] ** 0.5  # [T, T]
    place = torch.arange(len(new)) / len(new)
    stray = (place[:, None] - place).abs().sub(FREE).clamp_min(0)
    way = torch.from_numpy(warped((distance + STRAY * stray).numpy()))
    return even[way], float(distance[torch.arange(len(new)), way].mean())


def standardised(some: Sequence[Tensor]) -> list[Tensor]:
    """Features ``[T, D]`` with mean 0 and deviation 1 over all of them."""
    every = torch.cat(list(some))
    return [(one - every.mean(0)) / every.std(0).clamp_min(1e-2) for one in some]


def pairs_of(old: Sequence[Tensor], new: Sequence[Tensor], learn: int) -> list[Pair]:
    """Match sentences of two voices.

    Args:
        old: log-mels of the old voice ``[S, M]`` at 50 Hz.
        new: of the person saying the same, ``[T, M]``.
        learn: so many of the first sentences are learned from; all are matched.
    """
    wanted = [cepstra(mel, CEPSTRA) for mel in new]
    around = [surrounded(cepstra(mel, CEPSTRA)) for mel in old]
    comparable = zip(*(standardised([cepstra(mel, FIRST) for mel in some]) for some in (old, new)), strict=True)
    ways = [matched(*both) for both in comparable]
    for _ in range(ROUNDS):
        chosen = torch.cat([x[way] for x, (way, _) in zip(around[:learn], ways, strict=False)])
        weights = linear_map(chosen, torch.cat(wanted[:learn]))
        ways = [matched(x @ weights, y) for x, y in zip(around, wanted, strict=True)]
    return [Pair(mel, *way) for mel, way in zip(old, ways, strict=True)]


def on_characters(pair: Pair, position: Tensor, characters: int) -> Tensor | None:
    """The character of each of the person's frames.

    Args:
        pair: a sentence in both voices.
        position: ``[S]``, the character of each frame of the old voice.
        characters: how many there are.

    Returns:
        ``[T]`` int64, growing by steps of one from the first character to the last; None if T is too short for that.
    """
    way = position[pair.frames]
    starts = torch.searchsorted(way, torch.arange(characters)).clamp_max(len(way) - 1)
    return monotone(starts.tolist(), len(way))
