"""Log-mel frames back to sound, without any training.

The mel bands are turned into a spectrum by non-negative least squares, and phases are found by the fast
Griffin-Lim algorithm (Perraudin, Balazs, Søndergaard, WASPAA 2013; Griffin and Lim, 1984).
"""

from functools import lru_cache
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from muomni.config import Section
from muomni.errors import UserError
from muomni.mel import MelConfig, mel_filters


class VocoderConfig(Section):
    """Section ``vocoder``."""

    kind: Literal["griffin_lim"] = Field(description="how frames become sound; Griffin-Lim needs no training")
    iterations: int = Field(ge=1, le=1000, description="rounds of phase estimation")
    momentum: float = Field(ge=0, lt=1, description="acceleration; 0 is the original algorithm")
    inversion_steps: int = Field(ge=0, le=200, description="steps of the mel bands' inversion")
    seed: int = Field(ge=0, description="first phases; the same seed and frames give the same sound")


class GriffinLim(nn.Module):
    """Frames at 50 Hz (every second frame of the log-mel) to a waveform. No weights."""

    window: torch.Tensor
    filters: torch.Tensor
    inverse: torch.Tensor

    def __init__(self, mel: MelConfig, cfg: VocoderConfig) -> None:
        super().__init__()
        self.mel, self.cfg, self.hop = mel, cfg, 2 * mel.hop_length
        filters = mel_filters(mel)
        self.register_buffer("window", torch.hann_window(mel.win_length), persistent=False)
        self.register_buffer("filters", filters, persistent=False)  # [F, n_mels]
        self.register_buffer("inverse", torch.linalg.pinv(filters), persistent=False)  # [n_mels, F]

    def magnitudes(self, bands: torch.Tensor) -> torch.Tensor:
        """Non-negative spectrum [T, F] whose mel bands are near ``bands`` [T, n_mels] (linear scale).

        The pseudo-inverse gives negative magnitudes; what is clipped there is spread again by Lee and Seung's
        multiplicative steps (2001), which keep every value positive.
        """
        spectrum = (bands @ self.inverse).clamp(min=1e-6)
        target = bands @ self.filters.T
        for _ in range(self.cfg.inversion_steps):
            spectrum = spectrum * (target / (spectrum @ self.filters @ self.filters.T).clamp(min=1e-10))
        return spectrum

    @torch.no_grad()
    def forward(self, logmel: torch.Tensor) -> torch.Tensor:
        """Make the sound.

        Args:
            logmel: [T, n_mels] natural log-mel at 50 Hz, any float type.

        Returns:
            float32 [T * 320] in [-1, 1].

        Raises:
            UserError: if there is no frame, or one that is not finite.
        """
        if len(logmel) == 0:
            raise UserError("vocoder: no frames to make a sound from; the text may be empty")
        target = self.target(self.checked(logmel))
        draw = torch.Generator().manual_seed(self.cfg.seed)  # its own, the global one stays untouched
        phase = torch.rand(target.shape, generator=draw).to(target) * (2 * torch.pi)
        return self.find(target, torch.polar(target, phase), torch.zeros(0))[0]

    def checked(self, logmel: torch.Tensor) -> torch.Tensor:
        """Frames ``[T, n_mels]`` as float32 where the vocoder is; errors as `forward` raises them."""
        if logmel.ndim != 2 or logmel.shape[1] != self.mel.n_mels:
            raise ValueError(f"expected [T, {self.mel.n_mels}], got {tuple(logmel.shape)}")
        logmel = logmel.to(self.window)
        if not bool(torch.isfinite(logmel).all()):
            raise UserError("vocoder: the frames hold NaN or infinite values; train codec and Talker again")
        return logmel

    def target(self, logmel: torch.Tensor) -> torch.Tensor:
        """The magnitudes ``[F, T + 1]`` that the sound of frames ``[T, n_mels]`` should have."""
        # T * hop samples end on the centre of a frame T, which the mel does not have: repeat the last one
        return self.magnitudes(torch.cat((logmel, logmel[-1:])).clamp(max=20).exp()).T

    def transform(self, wave: torch.Tensor) -> torch.Tensor:
        """The spectrum ``[F, T + 1]`` of a sound ``[T * hop]``."""
        mel = self.mel
        return torch.stft(
            wave, mel.n_fft, self.hop, mel.win_length, self.window, pad_mode="constant", return_complex=True
        )

    def find(
        self, target: torch.Tensor, spectrum: torch.Tensor, given: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Find phases by the fast Griffin-Lim algorithm.

        Args:
            target: magnitudes ``[F, T + 1]``.
            spectrum: complex ``[F, T + 1]`` to begin with.
            given: the beginning of the sound where it is known, ``[samples]``, kept through all rounds.

        Returns:
            The sound ``[T * hop]`` in [-1, 1], its known beginning found like the rest, and its spectrum.
        """
        mel, samples = self.mel, (target.shape[1] - 1) * self.hop
        args = (mel.n_fft, self.hop, mel.win_length, self.window)
        previous = torch.zeros_like(spectrum)
        for _ in range(self.cfg.iterations):
            wave = torch.istft(spectrum, *args, length=samples)
            wave[: len(given)] = given
            consistent = self.transform(wave)
            # Perraudin's extrapolation, up to a factor that the division by the magnitude removes
            direction = consistent - previous * (self.cfg.momentum / (1 + self.cfg.momentum))
            spectrum = target * direction / direction.abs().clamp(min=1e-12)
            previous = consistent
        return torch.istft(spectrum, *args, length=samples).clamp(-1, 1), spectrum


class StreamingGriffinLim:
    """Sound as the frames come: Griffin-Lim on a window that moves on, what was given fixed (Zhu et al., 2007).

    Each window holds some frames that were given already, the new ones, and some that only help to find the phases
    of the new ones; those are found again in the next window. Sound that was given is put back in every round, so
    that the new sound joins it, and what is left of a step is faded over.

    Args:
        vocoder: its frames, filters and settings.
        chunk: frames that come out at once, 50 a second.
    """

    PAST, AHEAD = 6, 3  # frames before and after the new ones: a window of the transform spans 2.5 hops
    FADE = 160  # samples of the join, held back until the next window

    def __init__(self, vocoder: GriffinLim, chunk: int = 10) -> None:
        self.vocoder, self.chunk = vocoder, chunk
        self.frames = torch.zeros(0, vocoder.mel.n_mels)  # those that a window may need still
        self.first = 0  # number of the first of them
        self.made = 0  # frames whose sound is found
        self.past = torch.zeros(0)  # sound up to there, the last frames of it
        self.spectrum = torch.zeros(0)  # complex [F, n]: what the last window found for the frames after `made`
        self.held = torch.zeros(0)  # the last samples found, not given yet

    def push(self, logmel: torch.Tensor) -> torch.Tensor:
        """Take frames ``[T, n_mels]``, and give the sound that is ready, float32 ``[samples]``, perhaps none.

        Raises:
            UserError: if a frame is not finite.
        """
        self.frames = torch.cat((self.frames, self.vocoder.checked(logmel)))
        pieces = []
        while self.first + len(self.frames) - self.made >= self.chunk + self.AHEAD:
            pieces.append(self.window(self.made + self.chunk, last=False))
        return torch.cat(pieces) if pieces else torch.zeros(0)

    def finish(self) -> torch.Tensor:
        """The sound of what is left; all pieces together have `hop` samples a frame."""
        rest = self.first + len(self.frames)
        wave = self.window(rest, last=True) if rest > self.made else torch.zeros(0)
        wave, self.held = torch.cat((wave, self.held)), torch.zeros(0)
        return wave

    @torch.no_grad()
    def window(self, end: int, last: bool) -> torch.Tensor:
        """Find the sound of the frames from `made` to ``end``; what can be given of it."""
        vocoder, hop = self.vocoder, self.vocoder.hop
        known = min(self.made, self.PAST)  # frames of the window whose sound is given
        start = self.made - known
        target = vocoder.target(self.frames[start - self.first : end + self.AHEAD - self.first])
        draw = torch.Generator().manual_seed(vocoder.cfg.seed + self.made)
        spectrum = torch.polar(target, torch.rand(target.shape, generator=draw) * (2 * torch.pi))
        given = self.past[len(self.past) - known * hop :]
        if known:
            spectrum[:, :known] = vocoder.transform(given)[:, :known]
            guess = self.spectrum[:, : spectrum.shape[1] - known]
            spectrum[:, known : known + guess.shape[1]] = guess
        wave, spectrum = vocoder.find(target, spectrum, given)
        fade = len(self.held)
        if fade:
            weight = torch.linspace(0, 1, fade + 2)[1:-1]
            wave[len(given) - fade : len(given)].lerp_(self.held, 1 - weight)
            given = torch.cat((given[:-fade], wave[len(given) - fade : len(given)]))
        stop = (end - start) * hop
        give = stop if last else stop - self.FADE
        out = wave[len(given) - fade : give]
        self.held = torch.zeros(0) if last else wave[give:stop].clone()
        self.past = torch.cat((given, wave[len(given) : stop]))[-self.PAST * hop :]
        self.spectrum = spectrum[:, end - start :]
        self.made = end
        keep = max(self.first, end - self.PAST)
        self.frames, self.first = self.frames[keep - self.first :], keep
        return out


@lru_cache(maxsize=8)
def vocoder_of(mel: MelConfig, cfg: VocoderConfig) -> GriffinLim:
    """A vocoder on the CPU, made once for each configuration."""
    return GriffinLim(mel, cfg)


def griffin_lim(logmel: torch.Tensor, mel: MelConfig, cfg: VocoderConfig) -> torch.Tensor:
    """`GriffinLim` on the CPU as a function, its filters kept between calls: [T, n_mels] to [T * 320]."""
    return vocoder_of(mel, cfg)(logmel.cpu())
