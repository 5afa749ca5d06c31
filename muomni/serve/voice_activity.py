"""Whether somebody is speaking: a voice activity detector over a stream of sound.

Sound is looked at in frames of 20 ms, a new one every 10 ms. In each of seven bands the energy is
compared with the band's noise floor: the smallest smoothed energy of the last two seconds, so that steady noise and hum
count as silence. A frame's level is how far its two loudest bands stand above their floors. Speech begins when enough
frames in a row are above a threshold, which clicks are too short for, and ends after a given time below a lower one.
"""

from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

RATE = 16000  # samples a second
HOP = 160  # samples between frames: 10 ms
WINDOW = 320  # samples of a frame
FFT = 512
EDGES = (100, 300, 600, 1000, 1600, 2500, 4000, 7000)  # of the bands, Hz
MEMORY = 200  # frames in which the noise floor is looked for
SMOOTHING = 5  # frames over which energy is averaged for the floor
BIAS = 3.0  # dB: how far the mean of steady noise is above the smallest average of so many frames, about
QUIETEST = -68.0  # dB of full scale that a band's floor has at least; what is softer counts as silence
ONSET, OUT_OF = 5, 6  # of so many last frames so many are active when speech begins
HYSTERESIS = 4.0  # dB below the threshold at which speech goes on

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Change:
    """Speech began or ended.

    Attributes:
        kind: which of them.
        at: sample, counted from the first of the stream: the beginning of the first active frame, or the end of the
            last.
    """

    kind: Literal["started", "stopped"]
    at: int


def _band_matrix() -> npt.NDArray[np.float32]:
    hz = np.fft.rfftfreq(FFT, 1 / RATE)
    bands = [(hz >= low) & (hz < high) for low, high in zip(EDGES, EDGES[1:], strict=False)]
    # A sine of amplitude 1 has power 1/2: with this a full-scale sine gives -3 dB, whatever the window.
    power = 2 / (FFT * float((np.hanning(WINDOW) ** 2).sum()))
    return (np.stack(bands).T * power).astype(np.float32)


HANN = np.hanning(WINDOW).astype(np.float32)
BANDS = _band_matrix()  # [FFT // 2 + 1, bands]


class VoiceActivity:
    """A detector for one stream of sound. The same samples give the same changes, however they are cut into pieces.

    Args:
        threshold: 0 to 1, how far above the noise speech has to be: 4 to 14 dB.
        silence: seconds without speech that end it.

    Attributes:
        speaking: whether speech has begun and not ended.
        heard: samples that came so far.
    """

    def __init__(self, threshold: float = 0.5, silence: float = 0.5) -> None:
        self.threshold = 4.0 + 10.0 * threshold
        self.silence = round(silence * RATE)
        self.rest = np.zeros(0, np.float32)  # samples of the frame that is not complete
        self.heard = 0
        self.smooth: npt.NDArray[np.float64] | None = None
        self.floors: deque[npt.NDArray[np.float64]] = deque(maxlen=MEMORY)
        self.recent: deque[bool] = deque(maxlen=OUT_OF)
        self.last = 0  # sample at which the last active frame ended
        self.speaking = False

    def push(self, samples: Samples) -> list[Change]:
        """Hear more of the stream.

        Args:
            samples: ``[n]`` float32 in [-1, 1] at 16 kHz, any number of them.

        Returns:
            What changed, in order.
        """
        self.rest = np.concatenate((self.rest, samples))
        begin = self.heard - (len(self.rest) - len(samples))  # of the first frame
        self.heard += len(samples)
        changes: list[Change] = []
        count = max(0, (len(self.rest) - WINDOW) // HOP + 1)
        for number, decibels in enumerate(self.energies(count)):
            changes += self.decide(self.level(decibels), begin + number * HOP)
        self.rest = self.rest[count * HOP :]
        return changes

    def energies(self, count: int) -> npt.NDArray[np.float64]:
        """Energy of the first frames of what is held, in dB of full scale: ``[count, bands]``."""
        if not count:
            return np.zeros((0, len(EDGES) - 1))
        frames = np.lib.stride_tricks.sliding_window_view(self.rest, WINDOW)[::HOP][:count]
        power = np.abs(np.fft.rfft(frames * HANN, FFT)).astype(np.float32) ** 2 @ BANDS
        return 10 * np.log10(np.maximum(power.astype(np.float64), 1e-10))

    def level(self, decibels: npt.NDArray[np.float64]) -> float:
        """How far a frame is above the noise, dB; the floor learns from it."""
        energy = 10 ** (decibels / 10)
        self.smooth = energy if self.smooth is None else self.smooth + (energy - self.smooth) / SMOOTHING
        self.floors.append(10 * np.log10(self.smooth))
        floor = np.maximum(np.min(np.asarray(self.floors), 0) + BIAS, QUIETEST)
        return float(np.sort(decibels - floor)[-2:].mean())

    def decide(self, level: float, begin: int) -> list[Change]:
        """Take a frame's level into account; the frame begins at sample ``begin``."""
        active = level > self.threshold - HYSTERESIS * self.speaking
        self.recent.append(active)
        if active:
            self.last = begin + WINDOW
        if not self.speaking and sum(self.recent) >= ONSET:
            self.speaking = True
            first = len(self.recent) - 1 - list(self.recent).index(True)  # frames ago
            return [Change("started", max(0, begin - first * HOP))]
        if self.speaking and begin + WINDOW - self.last >= self.silence:
            self.speaking = False
            self.recent.clear()
            return [Change("stopped", self.last)]
        return []
