"""Sound as ONNX files: the log-mel front-end and both vocoders.

Exporters know no Fourier transforms of overlapping windows. Here a transform is a convolution with cosines and sines,
and its inverse a transposed one: more work than an FFT, the same numbers up to rounding.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muomni.griffin_lim import GriffinLim
from muomni.istft_vocoder import LOUDEST, OVERLAP, ISTFTVocoder
from muomni.mel import MelConfig, mel_filters
from muomni.vocoder import Vocoder


class Transform(nn.Module):
    """The short-time Fourier transform of one window, with real and imaginary parts one above the other.

    Args:
        window: ``[W]``, in the middle of a transform of ``n_fft`` samples.
        n_fft: length of the transform, at least W.
        hop: samples between windows.

    Attributes:
        before: samples of a window before its centre.
    """

    analysis: Tensor
    synthesis: Tensor
    squares: Tensor

    def __init__(self, window: Tensor, n_fft: int, hop: int) -> None:
        super().__init__()
        left = (n_fft - len(window)) // 2
        self.hop, self.before = hop, n_fft // 2 - left
        bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64)[:, None]
        angle = 2 * math.pi / n_fft * bins * (torch.arange(len(window), dtype=torch.float64) + left)  # [F, W]
        twice = torch.full_like(bins, 2.0)  # a real sound has each bin but the first and last also mirrored
        twice[0] = 1.0
        if n_fft % 2 == 0:
            twice[-1] = 1.0
        waves = torch.cat((angle.cos(), -angle.sin()))[:, None]  # [2 F, 1, W]
        window = window.double()
        self.register_buffer("analysis", (waves * window).float())
        self.register_buffer("synthesis", (waves * window * torch.cat((twice, twice))[:, None] / n_fft).float())
        self.register_buffer("squares", window.square().float()[None, None])

    def forward(self, padded: Tensor) -> Tensor:
        """Sound ``[B, samples]``, padded so that a window begins at its first sample, to ``[B, 2 F, frames]``."""
        return F.conv1d(padded[:, None], self.analysis, stride=self.hop)

    def inverse(self, spectrum: Tensor, samples: int, floor: float) -> Tensor:
        """Spectra ``[B, 2 F, frames]``, the first centred on the first sample, to sound ``[B, samples]``.

        ``floor`` is the least that the sum of the squared windows counts as, which the sound is divided by.
        """
        wave = F.conv_transpose1d(spectrum, self.synthesis, stride=self.hop)
        weight = F.conv_transpose1d(torch.ones_like(spectrum[:1, :1]), self.squares, stride=self.hop)
        wave, weight = (x[:, 0, self.before : self.before + samples] for x in (wave, weight))
        return wave / weight.clamp_min(floor)


class LogMelPart(nn.Module):
    """Sound ``[B, samples]`` at the model's rate to log-mel ``[B, frames, bands]``, 100 a second, an even number."""

    filters: Tensor

    def __init__(self, cfg: MelConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.transform = Transform(torch.hann_window(cfg.win_length), cfg.n_fft, cfg.hop_length)
        self.register_buffer("filters", mel_filters(cfg))

    def forward(self, wave: Tensor) -> Tensor:
        cfg, samples = self.cfg, wave.shape[1]
        frames = (samples + 2 * cfg.hop_length - 1) // (2 * cfg.hop_length) * 2
        right = (frames - 1) * cfg.hop_length + cfg.win_length - self.transform.before - samples
        spectrum = self.transform(F.pad(wave, (self.transform.before, right)))
        return (magnitude(spectrum).transpose(1, 2) @ self.filters).clamp(min=cfg.floor).log()


class GriffinLimPart(nn.Module):
    """Log-mel ``[T, bands]`` at 50 Hz to sound ``[T * hop]``, as `muomni.griffin_lim.GriffinLim`.

    ``phase`` ``[F, T + 1]``, 0 to 1, is what it begins with; GriffinLim draws it by its seed.
    """

    def __init__(self, vocoder: GriffinLim) -> None:
        super().__init__()
        self.vocoder = vocoder
        self.transform = Transform(torch.hann_window(vocoder.mel.win_length), vocoder.mel.n_fft, vocoder.hop)

    def forward(self, mel: Tensor, phase: Tensor) -> Tensor:
        cfg, transform = self.vocoder.cfg, self.transform
        target, samples = self.vocoder.target(mel), mel.shape[0] * self.vocoder.hop
        torch._check(phase.shape[1] == target.shape[1])
        angle, both = phase * (2 * math.pi), torch.cat((target, target))[None]  # [1, 2 F, T + 1]
        spectrum = both * torch.cat((angle.cos(), angle.sin()))[None]
        previous = torch.zeros_like(spectrum)
        for _ in range(cfg.iterations):
            wave = transform.inverse(spectrum, samples, 1e-11)
            consistent = transform(F.pad(wave, (transform.before, transform.before)))
            direction = consistent - previous * (cfg.momentum / (1 + cfg.momentum))
            length = magnitude(direction).clamp(min=1e-12)
            spectrum = both * direction / torch.cat((length, length), dim=1)
            previous = consistent
        return transform.inverse(spectrum, samples, 1e-11)[0].clamp(-1, 1)


class ISTFTPart(nn.Module):
    """Log-mel ``[T, bands]`` at 50 Hz to sound ``[T * hop]``, as `muomni.istft_vocoder.ISTFTVocoder`."""

    def __init__(self, vocoder: ISTFTVocoder) -> None:
        super().__init__()
        self.vocoder = vocoder
        self.transform = Transform(vocoder.window, vocoder.n_fft, vocoder.step)

    def forward(self, mel: Tensor) -> Tensor:
        vocoder, count = self.vocoder, 2 * mel.shape[0]
        x = vocoder.divide(vocoder.standardise(mel[None]).transpose(1, 2)).transpose(1, 2)  # [1, T, 2 D]
        x = vocoder.norm(x.reshape(1, count, vocoder.cfg.width))
        for block in vocoder.blocks:
            x = block(x)
        loud, phase = vocoder.head(vocoder.last_norm(x)).transpose(1, 2).chunk(2, dim=1)  # [1, F, 2 T]
        loud = loud.clamp(max=LOUDEST).exp()
        spectrum = torch.cat((loud * phase.cos(), loud * phase.sin()), dim=1)
        return self.transform.inverse(spectrum, count * vocoder.step, 1e-4)[0].clamp(-1, 1)


def vocoder_part(vocoder: Vocoder) -> nn.Module:
    """The vocoder that a model has."""
    if isinstance(vocoder, ISTFTVocoder):
        assert vocoder.n_fft == OVERLAP * vocoder.step
        return ISTFTPart(vocoder)
    assert isinstance(vocoder, GriffinLim)
    return GriffinLimPart(vocoder)


def magnitude(spectrum: Tensor) -> Tensor:
    """``[B, 2 F, frames]``, real above imaginary parts, to ``[B, F, frames]``."""
    real, imaginary = spectrum.chunk(2, dim=1)
    return (real.square() + imaginary.square()).sqrt()
