"""Sounds that users bring, and the sound that the model makes.

Every loader takes a path or the file's bytes and returns clean data or raises `UserError`: one line that
names the file, the fault and what to do. Decoders get bytes, never an address, and only the listed formats.
Nothing here needs torch, so that the processes that make the speech corpus start quickly.
"""

import io
import os
import wave
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from muomni.data.files import atomic_write_bytes
from muomni.errors import UserError

MAX_FILE_BYTES = 500_000_000
BLOCK = 1 << 18  # samples of a channel that are read at a time
MAX_SAMPLES = 100_000_000  # of all channels before they are averaged: 400 MB
MAX_DECODED = 1_000_000  # frames of a container's stream; ten minutes have a quarter of that at most
MAX_SECONDS = 600.0  # audio and video; what the model can use is less, and the context budget cuts it further
# Containers for PyAV. Playlists (HLS, DASH, concat) are left out: they would open further addresses.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,mpeg,mpegts,gif,ogg,mp3,wav,flac,aac,aiff,caf,amr"

Source = str | os.PathLike[str] | bytes
Samples = npt.NDArray[np.float32]


def read_source(source: Source, kind: str) -> tuple[bytes, str]:
    """The bytes of a source and what messages call it. `kind` is for example ``image``.

    Raises:
        UserError: if the source is empty or too large.
    """
    if isinstance(source, bytes):
        data, name = source, f"{kind} (uploaded)"
        if len(data) > MAX_FILE_BYTES:
            raise UserError(f"{name}: larger than {MAX_FILE_BYTES // 1_000_000} MB; give a smaller file")
    else:
        data, name = _read_file(Path(source), kind)
    if not data:
        raise UserError(f"{name}: the {kind} file is empty (0 bytes); give another")
    return data, name


def _read_file(path: Path, kind: str) -> tuple[bytes, str]:
    try:
        if path.is_dir():
            raise UserError(f"{path}: is a folder; name the {kind} file in it")
        if not path.exists():
            raise UserError(f"{path}: no such file; check the path of the {kind}")
        if not path.is_file():  # a pipe or a device could be read for ever
            raise UserError(f"{path}: not a regular file; save the {kind} to a file first")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{path}: larger than {MAX_FILE_BYTES // 1_000_000} MB; give a smaller file")
        return path.read_bytes(), str(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path!s:.200}: cannot be read ({reason}); check the {kind}'s name and rights") from None


def reason(error: BaseException) -> str:
    """An exception on one short line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:160]


def load_audio(source: Source, sample_rate: int = 16000) -> Samples:
    """Load a recording as float32 [samples], its channels averaged, at `sample_rate`.

    libsndfile reads WAV, FLAC, OGG and MP3; PyAV what it does not know (m4a, mp4, webm, ...).

    Raises:
        UserError: if it cannot be read, is no audio, is damaged or cut off, has no samples, holds NaN, or is
            longer than `MAX_SECONDS`.
    """
    data, name = read_source(source, "audio")
    try:
        file = soundfile.SoundFile(io.BytesIO(data))
    except (soundfile.LibsndfileError, TypeError, ValueError):  # not its format, or headerless
        if data[:4] in (b"RIFF", b"fLaC"):
            raise UserError(f"{name}: the audio file is damaged or cut off; save it again") from None
        wave = decode_audio(data, name, sample_rate, needed=True)
        assert wave is not None
        return wave
    with file:
        _check_seconds(file.frames / file.samplerate, name)
        _check_samples(file.frames * file.channels, name)
        _check_whole(data, name)
        wave, filled = np.empty(file.frames, np.float32), 0
        try:  # in blocks, or both all channels and their mean would be in memory
            while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                if len(block) > len(wave) - filled:  # libmpg123 loses count where it looks for the next frame
                    raise UserError(f"{name}: more samples than the {len(wave)} that it declares; save it again")
                wave[filled : filled + len(block)] = block.mean(1, dtype=np.float32)
                filled += len(block)
        except (soundfile.LibsndfileError, MemoryError) as error:
            raise UserError(f"{name}: the audio is damaged or cut off ({reason(error)})") from None
        if filled < len(wave):
            raise UserError(f"{name}: cut off after {filled} of {len(wave)} samples; save it again")
        return _finish(wave, file.samplerate, sample_rate, name)


def _check_seconds(seconds: float, name: str) -> None:
    if seconds > MAX_SECONDS:
        raise UserError(f"{name}: {seconds:.0f} s is over the limit of {MAX_SECONDS:.0f} s; give a shorter part")


def _check_samples(count: int, name: str) -> None:
    if count > MAX_SAMPLES:
        raise UserError(f"{name}: {count:,} samples are more than {MAX_SAMPLES:,}; give fewer channels or a lower rate")


def _check_whole(data: bytes, name: str) -> None:
    """libsndfile silently shortens a WAV that was cut off, so compare its own length with the file's."""
    declared = int.from_bytes(data[4:8], "little") + 8
    streamed = declared >= 0x7FFF0000 or declared == 8  # length was not known when the header was written
    if data[:4] == b"RIFF" and not streamed and declared > len(data) + 1:
        raise UserError(f"{name}: cut off after {len(data)} of {declared} bytes; save it again")


def _finish(wave: Samples, rate: int, sample_rate: int, name: str) -> Samples:
    """Check samples and bring them to the wanted rate."""
    if len(wave) == 0:
        raise UserError(f"{name}: the audio has no samples; give a recording that is not empty")
    if not np.isfinite(wave).all():
        raise UserError(f"{name}: the audio holds NaN or infinite samples; save the recording again")
    if rate != sample_rate:
        wave = soxr.resample(wave, rate, sample_rate).astype(np.float32)
    return wave if len(wave) else np.zeros(1, np.float32)  # a few samples of a high rate may round to none


def save_audio(path: str | os.PathLike[str], wave: npt.ArrayLike, rate: int) -> None:
    """Write a mono WAV of 16 bits, whole or not at all.

    Args:
        path: ends in ``.wav``.
        wave: [samples] in [-1, 1], an array or a tensor; what is outside is clipped.
        rate: samples a second, Hz.

    Raises:
        UserError: if there is no sample, one is NaN, or the file cannot be written.
        ValueError: if `wave` has other than one dimension.
    """
    path = Path(path)
    if path.suffix.lower() != ".wav":
        raise UserError(f"{path}: sound is written as WAV; give a name that ends in .wav")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a .wav file in it")
    samples = np.asarray(wave, dtype=np.float32)
    if samples.ndim != 1:
        raise ValueError(f"expected [samples], got {samples.shape}")
    samples = _finish(samples, rate, rate, str(path))
    buffer = io.BytesIO()
    pcm = np.round(samples.clip(-1, 1) * 32767).astype(np.int16)
    soundfile.write(buffer, pcm, rate, format="WAV", subtype="PCM_16")
    try:
        atomic_write_bytes(path, buffer.getvalue())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another place") from None


class GrowingSound:
    """A mono WAV of 16 bits that is written as sound comes; what is there can be played at any time.

    Args:
        path: ends in ``.wav``; made with the first samples, what was there is replaced.
        rate: samples a second, Hz.
    """

    def __init__(self, path: Path, rate: int) -> None:
        self.path, self.rate, self.samples = path, rate, 0
        self.file: wave.Wave_write | None = None

    def write(self, samples: npt.ArrayLike) -> None:
        """Add samples ``[n]`` in [-1, 1].

        Raises:
            UserError: if they cannot be written.
        """
        pcm = np.round(np.asarray(samples, dtype=np.float32).clip(-1, 1) * 32767).astype("<i2")
        try:
            if self.file is None:
                self.handle = self.path.open("wb")
                self.file = wave.Wave_write(self.handle)
                self.file.setparams((1, 2, self.rate, 0, "NONE", "not compressed"))
            self.file.writeframes(pcm.tobytes())  # and puts the length into the header
            self.handle.flush()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); choose another place") from None
        self.samples += len(pcm)

    def close(self) -> None:
        """End it. Every `write` left the file whole, so there is nothing that could get lost here."""
        if self.file is not None:
            with suppress(OSError):  # of a write that failed, and was told
                self.file.close()
            with suppress(OSError):
                self.handle.close()


# Containers, through PyAV


def open_container(data: bytes, name: str, kind: str) -> Any:
    """A file in a container, opened by PyAV.

    Raises:
        UserError: if PyAV is missing, or this is no such file.
    """
    try:
        import av
    except ImportError:
        raise UserError(f"{name}: this needs PyAV; install it with `pip install av`") from None
    try:
        return av.open(io.BytesIO(data), options={"format_whitelist": CONTAINERS})
    except (av.error.FFmpegError, ValueError, OSError):
        raise UserError(f"{name}: no {kind} that can be read, or damaged at its start; save it again") from None


def decoded(container: Any, stream: Any, name: str, kind: str) -> Iterator[Any]:
    """Frames of a stream; a decoder's error, or an end long before the declared, becomes a `UserError`."""
    import av

    end, count = 0.0, 0
    declared = float(stream.duration * stream.time_base) if stream.duration else 0.0
    _check_seconds(declared, name)
    try:
        for frame in container.decode(stream):
            start = float(stream.start_time * stream.time_base) if stream.start_time else 0.0
            end = max(end, (frame.time or 0.0) - start)
            _check_seconds(end, name)
            count += 1
            if count > MAX_DECODED:  # frames without a time, or with one time, would never be too long
                raise UserError(f"{name}: the {kind} has more than {MAX_DECODED:,} frames; give a shorter part")
            yield frame
    except (av.error.FFmpegError, ValueError) as error:
        raise UserError(f"{name}: the {kind} is damaged or cut off ({reason(error)})") from None
    if declared - end > max(2.0, 0.1 * declared):
        raise UserError(f"{name}: the {kind} is cut off after {end:.1f} of {declared:.1f} s; save it again")


def decode_audio(data: bytes, name: str, sample_rate: int, needed: bool) -> Samples | None:
    """The first sound track, or None if there is none and none is needed.

    Raises:
        UserError: if it is damaged, changes its rate, or has no sound although that is needed.
    """
    with open_container(data, name, "audio") as container:
        import av

        if not container.streams.audio:
            if needed:
                raise UserError(f"{name}: there is no sound in it; give an audio file (WAV, FLAC, MP3, m4a)")
            return None
        rate, parts, count = 0, list[Samples](), 0
        # Only the sample format: its own mixing to mono would make float stereo louder by 3 dB.
        to_float = av.AudioResampler(format="fltp")
        try:
            for frame in decoded(container, container.streams.audio[0], name, "audio"):
                rate = rate or frame.sample_rate
                if frame.sample_rate != rate or rate <= 0:  # two files that were joined without a look
                    raise UserError(f"{name}: goes from {rate} Hz to {frame.sample_rate} Hz; save it again at one rate")
                count += frame.samples * len(frame.layout.channels)
                _check_samples(count, name)
                parts += [out.to_ndarray().mean(0) for out in to_float.resample(frame)]
            parts += [out.to_ndarray().mean(0) for out in (to_float.resample(None) if parts else [])]
        except (av.error.FFmpegError, ValueError) as error:  # the number of channels changes, for example
            raise UserError(f"{name}: the audio is damaged, or changes on the way ({reason(error)})") from None
    wave = np.concatenate(parts).astype(np.float32, copy=False) if parts else np.zeros(0, np.float32)
    return _finish(wave, rate, sample_rate, name)
