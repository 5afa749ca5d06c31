"""What a client of the realtime interface lets the server hear, and where turns begin and end in it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr

from muomni.serve.realtime_channel import new_id
from muomni.serve.realtime_schema import BadEvent, ServerVad
from muomni.serve.sounds import WIRE_RATE
from muomni.serve.voice_activity import RATE, VoiceActivity

Samples = npt.NDArray[np.float32]
FINDING = RATE // 4  # samples within which a beginning is found; held back beside the padding
AFTER = RATE // 10  # samples that are kept after the last of speech


@dataclass(frozen=True)
class Started:
    """The user began to speak.

    Attributes:
        item: what the turn will be called.
        ms: its first sound, padding included, from the session's first.
    """

    item: str
    ms: int


@dataclass(frozen=True, eq=False)
class Stopped:
    """The user has finished.

    Attributes:
        item: what the turn is called.
        ms: its last sound.
        sound: ``[n]`` float32 at 16 kHz.
    """

    item: str
    ms: int
    sound: Samples


class Listening:
    """The buffer of what was heard and not yet used, and the turns in it.

    Args:
        most: seconds that it holds; a turn that is longer ends there.

    Attributes:
        turn: the item of what is being said; None while nothing is.
    """

    def __init__(self, most: float) -> None:
        self.most = round(most * RATE)
        self.resampler = soxr.ResampleStream(WIRE_RATE, RATE, 1, "float32")
        self.held = np.zeros(0, np.float32)
        self.heard = 0  # samples of the session
        self.vad: ServerVad | None = None
        self.activity = VoiceActivity()
        self.origin = 0  # sample at which `activity` began to hear
        self.turn: str | None = None
        self.start = 0  # sample at which that begins

    def detect(self, vad: ServerVad | None) -> None:
        """Find turns with these settings from now on; None: they end by `take` alone."""
        if vad != self.vad:
            self.vad = vad
            self.restart()

    def restart(self) -> None:
        """Forget that somebody speaks."""
        self.turn = None
        if self.vad:
            self.activity = VoiceActivity(self.vad.threshold, self.vad.silence_duration_ms / 1000)
            self.origin = self.heard

    def add(self, wave: Samples) -> list[Started | Stopped]:
        """Hear more. Takes about 5 ms a second of sound.

        Args:
            wave: ``[n]`` float32 at the wire's rate.

        Returns:
            What began and ended in it.

        Raises:
            BadEvent: if turns are not found and it is more than the buffer holds.
        """
        if not self.vad and len(self.held) + len(wave) * RATE // WIRE_RATE > self.most:
            seconds = self.most // RATE
            raise BadEvent(
                f"audio: the buffer holds {seconds} s; commit or clear it", "input_audio_buffer_full", "audio"
            )
        sound = self.resampler.resample_chunk(wave)
        self.held = np.concatenate((self.held, sound))
        self.heard += len(sound)
        found: list[Started | Stopped] = []
        if not self.vad:
            return found
        for change in self.activity.push(sound):
            at = self.origin + change.at
            found.append(self.begin(at) if change.kind == "started" else self.end(min(at + AFTER, self.heard)))
        if self.turn and self.heard - self.start > self.most:
            found.append(self.end(self.heard))
            self.restart()
        if not self.turn:
            self.forget(self.heard - FINDING - self.padding)
        return found

    @property
    def padding(self) -> int:
        """Samples before speech that belong to its turn."""
        return self.vad.prefix_padding_ms * RATE // 1000 if self.vad else 0

    def begin(self, at: int) -> Started:
        """Speech begins at a sample of the session."""
        self.start = max(at - self.padding, self.heard - len(self.held))
        self.turn = new_id("item")
        return Started(self.turn, self.start * 1000 // RATE)

    def end(self, at: int) -> Stopped:
        """The turn ends at a sample of the session; what comes after is held."""
        first = self.heard - len(self.held)
        sound, item = self.held[self.start - first : at - first], self.turn or new_id("item")
        self.forget(at)
        self.turn = None
        return Stopped(item, at * 1000 // RATE, sound)

    def forget(self, upto: int) -> None:
        """Drop what was heard before a sample of the session."""
        drop = upto - (self.heard - len(self.held))
        if drop > 0:
            self.held = self.held[drop:].copy()

    def take(self) -> tuple[str, Samples]:
        """What is held, as a turn: its item and its sound ``[n]`` float32 at 16 kHz.

        Raises:
            BadEvent: if that is less than a tenth of a second.
        """
        if len(self.held) < RATE // 10:
            ms = len(self.held) * 1000 / RATE
            message = f"the buffer has {ms:.0f} ms of sound; a turn has at least 100 ms"
            raise BadEvent(message, "input_audio_buffer_commit_empty")
        item, sound = self.turn or new_id("item"), self.held
        self.clear()
        return item, sound

    def clear(self) -> None:
        """Forget what is held."""
        self.held = np.zeros(0, np.float32)
        self.restart()
