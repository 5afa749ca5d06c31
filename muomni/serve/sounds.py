"""Speech on its way out: samples of 24,000 Hz for streams, and files of the usual formats, whole or as they come."""

import base64
import io
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm", "pcm16"]
WIRE_RATE = 24_000  # Hz of samples without a header, as the API has it
MEDIA = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
    "pcm16": "audio/pcm",
}
# Container and codec of PyAV, and what to tell them: a stream is never gone back in.
ENCODERS: dict[str, tuple[str, str, dict[str, str]]] = {
    "mp3": ("mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0"}),
    "opus": ("ogg", "libopus", {}),
    "aac": ("adts", "aac", {}),
    "flac": ("flac", "flac", {}),
}
UNKNOWN = 0xFFFFFFFF  # length of a WAV that is still being made


def to_pcm16(wave: np.ndarray) -> bytes:
    """Samples float ``[n]`` in [-1, 1] as 16 bits, little-endian."""
    return np.round(wave.clip(-1, 1) * 32767).astype("<i2").tobytes()


class Wire:
    """Sound of any rate, in pieces, as samples of 16 bits at `WIRE_RATE`.

    Args:
        rate: of what comes, Hz.
    """

    def __init__(self, rate: int) -> None:
        self.stream = soxr.ResampleStream(rate, WIRE_RATE, 1, dtype="float32")

    def push(self, wave: Tensor) -> bytes:
        """More: float32 ``[samples]``; a little of it is held back."""
        return to_pcm16(self.stream.resample_chunk(wave.numpy()))

    def finish(self) -> bytes:
        """What was held back."""
        return to_pcm16(self.stream.resample_chunk(np.zeros(0, np.float32), last=True))


class Sink:
    """Bytes that were written and not taken yet; for PyAV, which cannot go back in them: there is no ``seek``."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: Any) -> int:
        """Take bytes."""
        self.parts.append(bytes(data))
        return len(self.parts[-1])

    def take(self) -> bytes:
        """All that was written since."""
        parts, self.parts = self.parts, []
        return b"".join(parts)


class Writer:
    """A file of sound that is made as the sound comes.

    Args:
        kind: of file.
        rate: of what comes, Hz, which is the file's but for samples without a header.
    """

    def __init__(self, kind: Format, rate: int) -> None:
        self.kind, self.rate = kind, rate
        self.wire = Wire(rate) if kind in ("pcm", "pcm16") else None
        self.begun = False
        if kind in ENCODERS:
            import av

            container, codec, options = ENCODERS[kind]
            self.sink = Sink()
            self.container = av.open(self.sink, "w", format=container, options=options)
            self.stream: Any = self.container.add_stream(codec, rate=rate, layout="mono")

    def push(self, wave: Tensor) -> bytes:
        """The bytes that more sound, float32 ``[samples]``, adds; perhaps none yet."""
        if self.wire is not None:
            return self.wire.push(wave)
        if self.kind == "wav":
            head = b"" if self.begun else wav_head(self.rate)
            self.begun = True
            return head + to_pcm16(wave.numpy())
        import av

        frame = av.AudioFrame.from_ndarray(wave.numpy()[None], format="flt", layout="mono")
        frame.sample_rate = self.rate
        for packet in self.stream.encode(frame):
            self.container.mux(packet)
        return self.sink.take()

    def finish(self) -> bytes:
        """The last bytes."""
        if self.wire is not None:
            return self.wire.finish()
        if self.kind == "wav":
            return b"" if self.begun else wav_head(self.rate)
        for packet in self.stream.encode(None):
            self.container.mux(packet)
        self.container.close()
        return self.sink.take()


def wav_head(rate: int) -> bytes:
    """The beginning of a WAV of 16 bits whose length nobody knows yet."""
    size = UNKNOWN.to_bytes(4, "little")
    head = b"RIFF" + size + b"WAVEfmt " + (16).to_bytes(4, "little") + (1).to_bytes(2, "little") * 2
    head += rate.to_bytes(4, "little") + (2 * rate).to_bytes(4, "little") + (2).to_bytes(2, "little")
    return head + (16).to_bytes(2, "little") + b"data" + size


def to_file(waves: Iterable[Tensor], kind: Format, rate: int) -> bytes:
    """All of the sound, pieces float32 ``[samples]``, as one file."""
    wave = torch.cat([torch.zeros(0), *waves])
    if kind in ("wav", "flac"):
        file = io.BytesIO()
        soundfile.write(file, np.frombuffer(to_pcm16(wave.numpy()), "<i2"), rate, "PCM_16", format=kind.upper())
        return file.getvalue()
    writer = Writer(kind, rate)
    return (writer.push(wave) if len(wave) else b"") + writer.finish()


def text(data: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(data).decode()
