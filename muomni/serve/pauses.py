"""Where a recording is divided: the model learned from sentences, so that is what it is to hear at once."""

import numpy as np

from muomni.sound import Samples

SENTENCE_S = 4.0  # what is shorter is heard in one go
FRAME_S = 0.02  # over which loudness is measured
PAUSE_S = 0.15  # the shortest pause between sentences, longer than most within one
QUIET = 0.1  # of the loudness that all but a twentieth of the recording stays below


def in_parts(samples: Samples, rate: int, longest: float) -> list[Samples]:
    """A recording in parts that are heard one after the other; joined, they are the recording.

    Longer ones than a sentence are divided in the middle of their pauses, and what is then still too long, where it is
    quietest.

    Args:
        samples: float32 ``[samples]``.
        rate: of them, Hz.
        longest: seconds of a part at most.
    """
    parts = at_pauses(samples, rate) if len(samples) > SENTENCE_S * rate else [samples]
    return [piece for part in parts for piece in shorter(part, rate, longest)]


def loudness(samples: Samples, width: int) -> np.ndarray:
    """Root of the mean square of each frame of so many samples; a rest at the end is left out."""
    frames = samples[: len(samples) // width * width].reshape(-1, width)
    return np.sqrt(np.square(frames, dtype=np.float64).mean(1))


def at_pauses(samples: Samples, rate: int) -> list[Samples]:
    """Divide in the middle of every pause but those at the beginning and the end."""
    width = max(1, round(FRAME_S * rate))
    loud = loudness(samples, width)
    quiet = np.concatenate(([False], loud < QUIET * np.percentile(loud, 95), [False]))
    edges = np.flatnonzero(quiet[1:] != quiet[:-1]).reshape(-1, 2)  # where each pause begins and ends, frames
    pauses = [(a, b) for a, b in edges.tolist() if a > 0 and b < len(loud) and (b - a) * FRAME_S >= PAUSE_S]
    return np.split(samples, [(a + b) // 2 * width for a, b in pauses])


def shorter(samples: Samples, rate: int, longest: float) -> list[Samples]:
    """Divide where it is quietest, as often as it takes."""
    most, width, parts = int(longest * rate), max(1, round(FRAME_S * rate)), list[Samples]()
    while len(samples) > most:
        second = loudness(samples[most // 2 : most], width)
        cut = most // 2 + int(second.argmin()) * width + width // 2
        parts.append(samples[:cut])
        samples = samples[cut:]
    return [*parts, samples]
