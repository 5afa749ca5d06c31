"""How far two sounds are apart, whatever their phases."""

import torch
from torch import Tensor, nn

WINDOWS = (256, 512, 1024, 2048)  # samples of the transforms that sounds are compared by
QUIET = 2e-5  # of a window's sum: magnitudes below it count as silence, 88 dB below the loudest tone


class SpectralDistance(nn.Module):
    """How far two sounds are apart by their magnitudes at several resolutions (Yamamoto et al., 2020)."""

    def __init__(self) -> None:
        super().__init__()
        for size in WINDOWS:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)

    def magnitudes(self, wave: Tensor, size: int) -> Tensor:
        """Waveforms ``[B, samples]`` to ``[B, size / 2 + 1, frames]``."""
        window = self.get_buffer(f"window_{size}")
        spectrum = torch.stft(wave, size, size // 4, window=window, pad_mode="constant", return_complex=True)
        # The root's slope is infinite at 0.
        return (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()

    def forward(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Convergence plus difference of logarithms in nats, the mean over resolutions; both ``[B, samples]``."""
        total = made.new_zeros(())
        for size in WINDOWS:
            a, b = self.magnitudes(made, size), self.magnitudes(wanted, size)
            quiet = QUIET * float(self.get_buffer(f"window_{size}").sum())
            convergence = (a - b).norm() / b.norm().clamp_min(1e-6)
            total = total + convergence + (a.clamp_min(quiet).log() - b.clamp_min(quiet).log()).abs().mean()
        return total / len(WINDOWS)
