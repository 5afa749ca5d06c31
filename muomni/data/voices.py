"""Voices that read sentences aloud, from packages that carry all they need.

``hibari`` is one clear neural voice (Apache-2.0). eSpeak NG (GPL-3) has many robotic ones; it is a tool that
is run to make data, nothing of it is part of muOmni. What either says depends on its arguments only.
"""

import ctypes
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from muomni.errors import UserError
from muomni.recording import MARGIN, PEAK, QUIET

Samples = npt.NDArray[np.float32]

INSTALL = "install it with `pip install 'muomni[data]'`"


def speakable(text: str) -> bool:
    """Whether there is anything in a text that a voice could say."""
    return re.search(r"[A-Za-z0-9]", text) is not None


def clean(wave: Samples, rate: int, sample_rate: int) -> Samples:
    """Resample a recording, trim the silence around it to `MARGIN` and bring its peak to `PEAK`.

    Args:
        wave: [samples], float32.
        rate: its samples a second.
        sample_rate: the rate that is wanted.

    Returns:
        float32 [samples]; empty if there is nothing but silence.

    Raises:
        ValueError: if a sample is NaN or infinite.
    """
    if not np.isfinite(wave).all():
        raise ValueError("it holds NaN or infinite samples")
    if rate != sample_rate and len(wave):
        wave = soxr.resample(wave, rate, sample_rate).astype(np.float32)
    peak = float(np.abs(wave).max(initial=0))
    if peak < 1e-4:
        return np.zeros(0, np.float32)
    window = sample_rate // 100
    blocks = np.pad(wave, (0, -len(wave) % window)).reshape(-1, window)  # [n, window]: 10 ms each
    loud = np.flatnonzero(np.sqrt((blocks**2).mean(1)) > QUIET * peak)
    margin = int(MARGIN * sample_rate)
    start, end = int(loud[0]) * window - margin, (int(loud[-1]) + 1) * window + margin
    return (wave[max(start, 0) : end] * (PEAK / peak)).astype(np.float32)


class Hibari:
    """The clear voice: 24 kHz, about a hundred times faster than real time on one core."""

    rate = 24000

    def __init__(self) -> None:
        try:
            import hibari
        except ImportError:
            raise UserError(f"speech.source: 'embedded' needs the package hibari-tts; {INSTALL}") from None
        self._voice = hibari.Hibari(threads=1)

    def say(self, text: str, speed: float, seed: int) -> Samples:
        """Read a text: float32 [samples]. The seed fixes the breath's noise."""
        return np.asarray(self._voice(text, speed=speed, seed=seed), np.float32)


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_SYNCHRONOUS, _DONT_EXIT, _UTF8, _RATE = 2, 0x8000, 1, 1  # constants of espeak-ng/speak_lib.h


def _library() -> tuple[ctypes.CDLL, str]:
    """A fresh copy of the library in memory, and its data path.

    eSpeak NG keeps oscillator phases and noise from one text to the next, even when it is initialised again,
    so what a voice says would depend on what was said before. A copy under another name has its own memory.
    """
    try:
        import espeakng_loader
    except ImportError:
        raise UserError(f"speech.espeak_fraction: above 0 it needs espeakng-loader; {INSTALL}") from None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "espeak.so"
        shutil.copy(espeakng_loader.get_library_path(), copy)
        return ctypes.CDLL(str(copy)), espeakng_loader.get_data_path()


def espeak(voice: str, texts: Sequence[tuple[str, int]]) -> Iterator[tuple[Samples, int]]:
    """Read texts in one voice of eSpeak NG.

    Args:
        voice: a language with a variant, for example ``en-us+f2``.
        texts: each text with its pace in words a minute.

    Returns:
        For each text in turn its float32 [samples] and its rate in Hz. The same texts in the same order
        always sound the same.

    Raises:
        UserError: if the package is missing or there is no such voice.
    """
    library, data = _library()
    # It would take another voice in silence for a name that it does not have.
    language, _, variant = voice.partition("+")
    languages = {path.name.lower() for path in (Path(data) / "lang").rglob("*") if path.is_file()}
    if language.lower() not in languages or (variant and not (Path(data) / "voices/!v" / variant).is_file()):
        english = ", ".join(sorted(name for name in languages if name.startswith("en")))
        raise UserError(
            f"speech.espeak_voices: eSpeak NG has no voice '{voice}'; use one of {english} with a variant "
            "such as +f2 or +m3"
        )
    heard: list[npt.NDArray[np.int16]] = []

    def hear(samples: Any, number: int, _events: Any) -> int:
        if samples and number > 0:
            heard.append(np.ctypeslib.as_array(samples, (number,)).copy())
        return 0

    callback = _CALLBACK(hear)  # held here: ctypes would let it be collected
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _DONT_EXIT)
    if rate <= 0:
        raise UserError(f"speech.espeak_voices: eSpeak NG does not start with its data in {data}; {INSTALL}")
    try:
        library.espeak_SetSynthCallback(callback)
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(f"speech.espeak_voices: eSpeak NG cannot load the voice '{voice}'; choose another")
        for text, pace in texts:
            heard.clear()
            library.espeak_SetParameter(_RATE, pace, 0)
            encoded = text.encode()
            library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded) + 1), 0, 0, 0, _UTF8, None, None)
            library.espeak_Synchronize()
            pcm = np.concatenate(heard) if heard else np.zeros(0, np.int16)
            yield pcm.astype(np.float32) / np.float32(32768), rate
    finally:
        library.espeak_Terminate()
