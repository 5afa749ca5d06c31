"""More of few recordings: the same ones a little slower and faster, and cut into frames half a frame later.

Codes are 50 a second, and which ones a sound gets depends on where its frames begin. A voice learned from fifty
sentences would learn their codes by heart; of each there are several ways to write it.
"""

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor

from muomni.alignment import monotone

PACES = (0.9, 1.0, 1.1)


def stretched(mel: Tensor, pace: float) -> Tensor:
    """A log-mel ``[T, M]`` with the frames of `pace` times the length, at the same pitch."""
    if pace == 1:
        return mel
    return F.interpolate(mel.T[None], size=round(len(mel) * pace), mode="linear", align_corners=False)[0].T


def starts_of(way: Tensor) -> list[int]:
    """The first frame of each character of a way ``[T]``."""
    starts = [0]
    for frame, (before, here) in enumerate(zip(way.tolist(), way.tolist()[1:], strict=False), 1):
        if here != before:
            starts.append(frame)
    return starts


def variants(mel: Tensor, way: Tensor, paces: Sequence[float] = PACES) -> Iterator[tuple[Tensor, Tensor]]:
    """A recording in several ways.

    Args:
        mel: log-mel ``[T, M]`` at 100 Hz.
        way: the character of each of its frames at 50 Hz, ``[ceil(T / 2)]``.
        paces: lengths, 1 is as it is.

    Yields:
        Log-mels at 50 Hz, each with its way; those that are too short for all characters are left out.
    """
    starts = starts_of(way)
    for pace in paces:
        longer = stretched(mel, pace)
        for late in (0, 1):
            frames = longer[late::2]
            moved = [max(0, round(start * pace - 0.5 * late)) for start in starts]
            placed = monotone([min(start, len(frames) - 1) for start in moved], len(frames))
            if placed is not None:
                yield frames, placed
