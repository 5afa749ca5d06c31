"""The one log-mel front-end that every stage and inference share.

100 frames a second, 128 bands, natural logarithm. The audio encoder reads all frames, the codec every second
one (``mel[::2]``, 50 frames a second), so the number of frames is always even. Frame ``t`` is centred on
sample ``t * hop_length``; outside the recording is silence (zeros: a reflection fails on short input).
"""

import math
from functools import lru_cache

import torch
from pydantic import Field, model_validator
from torch import nn

from muomni.config import Section
from muomni.errors import UserError


class MelConfig(Section):
    """Section ``mel``: what a frame is. Whatever hears or speaks must be trained again after a change."""

    sample_rate: int = Field(ge=8000, le=48000, description="samples a second of every recording, Hz")
    n_fft: int = Field(ge=64, le=8192, description="length of the Fourier transform, samples")
    win_length: int = Field(ge=32, le=8192, description="length of the Hann window, samples, at most n_fft")
    hop_length: int = Field(ge=16, le=4096, description="samples between frames: 160 for 100 frames a second")
    n_mels: int = Field(ge=8, le=256, description="mel bands")
    f_min: float = Field(ge=0, le=1000, description="lower edge of the lowest band, Hz")
    f_max: float = Field(ge=1000, le=24000, description="upper edge of the highest band, Hz")
    floor: float = Field(gt=0, le=1, description="smallest band magnitude before the logarithm")

    @model_validator(mode="after")
    def _consistent(self) -> "MelConfig":
        if self.f_min >= self.f_max:
            raise ValueError(f"f_min {self.f_min} is not below f_max {self.f_max}")
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length {self.win_length} is longer than n_fft {self.n_fft}")
        if 2 * self.hop_length >= self.win_length:
            raise ValueError(f"win_length {self.win_length} must exceed two hops, the codec's step")
        if self.f_max > self.sample_rate / 2:
            raise ValueError(f"f_max {self.f_max} is above half the sample rate")
        return self


def count_frames(samples: int, cfg: MelConfig) -> int:
    """Frames of a recording: ``ceil(samples / hop_length)``, rounded up to an even number."""
    frames = math.ceil(samples / cfg.hop_length)
    return frames + frames % 2


def mel_filters(cfg: MelConfig) -> torch.Tensor:
    """Triangular filters [n_fft // 2 + 1, n_mels] of peak 1 on Slaney's mel scale, float32.

    Slaney's scale (Auditory Toolbox, 1998) is linear below 1 kHz, so that 128 bands over 1024 points
    leave no filter empty, as the HTK formula would at the low end.
    """
    linear, step = (
        200.0 / 3,
        math.log(6.4) / 27,
    )  # Hz a mel below 1 kHz; log ratio a mel above

    def to_mel(hz: float) -> float:
        return hz / linear if hz < 1000 else 15 + math.log(hz / 1000) / step

    mels = torch.linspace(to_mel(cfg.f_min), to_mel(cfg.f_max), cfg.n_mels + 2, dtype=torch.float64)
    edges = torch.where(mels < 15, mels * linear, 1000 * torch.exp((mels - 15) * step))  # [n_mels + 2] Hz
    bins = torch.linspace(0, cfg.sample_rate / 2, cfg.n_fft // 2 + 1, dtype=torch.float64)[:, None]  # [F, 1] Hz
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp(min=0).float()


class LogMel(nn.Module):
    """Waveform to log-mel frames. No weights: the buffers follow `.to(device)` and are not saved."""

    window: torch.Tensor
    filters: torch.Tensor

    def __init__(self, cfg: MelConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.register_buffer("window", torch.hann_window(cfg.win_length), persistent=False)
        self.register_buffer("filters", mel_filters(cfg), persistent=False)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        """Compute the frames.

        Args:
            wave: float32 [samples] or [B, samples] in [-1, 1] at ``sample_rate``.

        Returns:
            float32 [frames, n_mels] or [B, frames, n_mels], with `count_frames` frames.

        Raises:
            UserError: if there is no sample, or one that is not a finite number.
            ValueError: for another number of dimensions.
        """
        cfg, samples = self.cfg, wave.shape[-1]
        if wave.ndim not in (1, 2):
            raise ValueError(f"expected [samples] or [B, samples], got {tuple(wave.shape)}")
        if wave.numel() == 0:
            raise UserError("audio: it has no samples; give a recording that is not empty")
        wave = wave.to(self.window)
        if not bool(torch.isfinite(wave).all()):
            raise UserError("audio: it holds samples that are NaN or infinite; save the recording again")
        frames = count_frames(samples, cfg)
        left = cfg.n_fft // 2  # frame 0 is centred on sample 0
        right = (frames - 1) * cfg.hop_length + cfg.n_fft - left - samples
        spectrum = torch.stft(
            nn.functional.pad(wave, (left, right)),
            cfg.n_fft,
            cfg.hop_length,
            cfg.win_length,
            self.window,
            center=False,
            return_complex=True,
        )  # [.., F, frames]
        return (spectrum.abs().transpose(-1, -2) @ self.filters).clamp(min=cfg.floor).log()


@lru_cache(maxsize=8)
def _front_end(cfg: MelConfig) -> LogMel:
    return LogMel(cfg)


def log_mel(wave: torch.Tensor, cfg: MelConfig) -> torch.Tensor:
    """`LogMel` on the CPU as a function, its filters kept between calls."""
    return _front_end(cfg)(wave.cpu())
