"""What one recording is like: its rate, channels, loudness, and how much of it is clipped."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soundfile

from muomni.data.speech_corpus import SpeechConfig, usable
from muomni.data.speech_files import read_sound
from muomni.data.utterances import Utterance
from muomni.errors import UserError
from muomni.sound import BLOCK, decode_audio, load_audio, open_container, read_source

FULL = 0.999  # of full scale: what is there was probably cut off


@dataclass(frozen=True)
class Measured:
    """A recording's figures.

    Attributes:
        seconds: of speech, as the corpus keeps it.
        rate: samples a second of the file.
        channels: of the file.
        clipped: share of its samples at full scale, 0 to 1.
        peak: its largest sample, 1 is full scale.
        sha256: of the file.
    """

    seconds: float
    rate: int
    channels: int
    clipped: float
    peak: float
    sha256: str


def measure(items: Sequence[Utterance], cfg: SpeechConfig) -> list[Measured | str]:
    """Read recordings as stage corpus-speech does; for what it would set aside the reason instead."""
    return [_measured(item.source, cfg) for item in items]


def _measured(address: str, cfg: SpeechConfig) -> Measured | str:
    try:
        source = read_sound(address)
        wave = usable(load_audio(source, cfg.sample_rate), cfg.sample_rate, cfg)
        data, name = read_source(source, "audio")
        rate, channels, clipped, peak = levels(data, name)
    except (UserError, ValueError) as error:
        return str(error)
    return Measured(len(wave) / cfg.sample_rate, rate, channels, clipped, peak, hashlib.sha256(data).hexdigest())


def levels(data: bytes, name: str) -> tuple[int, int, float, float]:
    """Rate, channels, the share of samples at full scale and the peak of a recording that `load_audio` reads."""
    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except soundfile.LibsndfileError:
        with open_container(data, name, "audio") as container:
            stream = container.streams.audio[0]
            rate, channels = int(stream.rate), int(stream.channels)
        wave = decode_audio(data, name, rate, needed=True)
        assert wave is not None
        size = np.abs(wave)
        return rate, channels, float((size >= FULL).mean()), float(size.max())
    full, count, peak = 0, 0, 0.0
    with file:
        while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
            size = np.abs(block)
            full, count, peak = full + int((size >= FULL).sum()), count + size.size, max(peak, float(size.max()))
        return file.samplerate, file.channels, full / max(count, 1), peak
