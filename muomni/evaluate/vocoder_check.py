"""Vocoders beside each other: how near they come to recordings, what a recogniser hears, how long they take."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from muomni.codec import Codec
from muomni.errors import UserError
from muomni.evaluate.judge import Judge
from muomni.evaluate.measure import mean, ratio
from muomni.evaluate.speech import judged
from muomni.evaluate.speech_check import Checked, listen_to
from muomni.mel import log_mel
from muomni.spectra import SpectralDistance
from muomni.vocoder import Vocoder

INSTALL = "install the optional group: pip install 'muomni[judge]'"


def intelligibility(recording: Tensor, made: Tensor, rate: int) -> float:
    """Short-time objective intelligibility of a sound (Taal et al., 2011), up to 1; both ``[samples]``.

    Raises:
        UserError: if its package is not installed.
    """
    try:
        from pystoi import stoi
    except ImportError as error:
        raise UserError(f"evaluate vocoder: {error.name} is missing; {INSTALL}") from None
    return float(stoi(recording.numpy(), made.numpy(), rate, extended=False))


class Comparison:
    """Sounds of vocoders beside the recordings that they were made from.

    Args:
        vocoders: by name, on the CPU in eval mode, all of the same log-mels.
        codec: the frames also go through it, in eval mode.
    """

    def __init__(self, vocoders: Mapping[str, Vocoder], codec: Codec) -> None:
        self.vocoders, self.codec, self.distance = vocoders, codec, SpectralDistance()
        self.seconds: dict[str, list[float]] = {name: [] for name in vocoders}  # of computing, for each sound
        self.lasts: list[float] = []  # how long each sound lasts, seconds
        self.found: dict[str, dict[str, list[float]]] = {}  # by signal and figure, for each sound

    def sounds(self, recording: Tensor) -> Iterator[tuple[str, Tensor]]:
        """A recording ``[samples]``, and what each vocoder makes of its frames and of the codec's."""
        cfg = next(iter(self.vocoders.values())).mel
        yield "recording", recording
        frames = log_mel(recording, cfg)[::2]  # [T, M] at 50 Hz
        self.lasts.append(len(frames) * 2 * cfg.hop_length / cfg.sample_rate)
        recording = torch.nn.functional.pad(recording, (0, len(frames) * 2 * cfg.hop_length - len(recording)))
        decoded = self.codec.decode(self.codec.encode(frames)[None])[0]
        for name, vocoder in self.vocoders.items():
            begin = time.perf_counter()
            wave = vocoder(frames)
            self.seconds[name].append(time.perf_counter() - begin)
            for signal, made in ((name, wave), (f"{name} after the codec", vocoder(decoded))):
                self.compare(signal, recording, made, vocoder)
                yield signal, made

    def compare(self, signal: str, recording: Tensor, made: Tensor, vocoder: Vocoder) -> None:
        """Take down how far a sound is from its recording; both ``[T * hop]``."""
        error = (log_mel(made, vocoder.mel) - log_mel(recording, vocoder.mel)).abs().mean()
        figures = {
            "mel_error": float(error),
            "spectral_distance": float(self.distance(made[None], recording[None])),
            "stoi": intelligibility(recording, made, vocoder.mel.sample_rate),
        }
        for name, value in figures.items():
            self.found.setdefault(signal, {}).setdefault(name, []).append(value)


def check_vocoders(
    vocoders: Mapping[str, Vocoder],
    codec: Codec,
    texts: Sequence[str],
    read: Callable[[str], Tensor],
    judge: Judge,
    seed: int,
    progress: Callable[[], object] = lambda: None,
) -> Checked:
    """Compare vocoders on recordings of some sentences.

    Args:
        vocoders: by name, in eval mode.
        codec: in eval mode.
        texts: sentences.
        read: how a voice says a text, float32 ``[samples]``.
        judge: the recogniser.
        seed: of the intervals.
        progress: called after each sentence.

    Returns:
        By signal: ``cer``, ``mel_error`` in nats, ``spectral_distance`` (`muomni.spectra`), ``stoi``; by vocoder
        ``real_time``, seconds of one thread for each second of sound.
    """
    compared = Comparison(vocoders, codec)
    found = listen_to(texts, lambda text: compared.sounds(read(text)), judge, progress)
    vocoder: dict[str, Any] = {
        signal: {name: mean(values, seed) for name, values in figures.items()}
        for signal, figures in compared.found.items()
    }
    found.scores = {
        "n": len(texts),
        "seed": seed,
        "judge": judge.name,
        "cer": {signal: judged(texts, heard, seed) for signal, heard in found.heard.items()},
        "vocoder": vocoder,
        "real_time": {name: ratio(spent, compared.lasts, seed) for name, spent in compared.seconds.items()},
    }
    return found
