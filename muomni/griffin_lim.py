"""Log-mel frames back to sound, without any training.

The mel bands are turned into a spectrum by non-negative least squares, and phases are found by the fast
Griffin-Lim algorithm (Perraudin, Balazs, Søndergaard, WASPAA 2013; Griffin and Lim, 1984).
"""

import torch
from pydantic import Field

from muomni.config import Section
from muomni.device import one_thread
from muomni.mel import MelConfig, mel_filters
from muomni.vocoder import Vocoder


class GriffinLimConfig(Section):
    """Section ``griffin_lim``."""

    iterations: int = Field(ge=1, le=1000, description="rounds of phase estimation")
    momentum: float = Field(ge=0, lt=1, description="acceleration; 0 is the original algorithm")
    inversion_steps: int = Field(ge=0, le=200, description="steps of the mel bands' inversion")
    seed: int = Field(ge=0, lt=2**31, description="first phases; the same seed and frames give the same sound")


class GriffinLim(Vocoder):
    """No weights. Spectrum and phases as in the module's text."""

    window: torch.Tensor
    filters: torch.Tensor
    inverse: torch.Tensor

    def __init__(self, mel: MelConfig, cfg: GriffinLimConfig) -> None:
        super().__init__(mel)
        self.cfg = cfg
        filters = mel_filters(mel)
        self.register_buffer("window", torch.hann_window(mel.win_length), persistent=False)
        self.register_buffer("filters", filters, persistent=False)  # [F, n_mels]
        with one_thread():  # its last bits depend on their number, and every sound on them
            inverse = torch.linalg.pinv(filters)
        self.register_buffer("inverse", inverse, persistent=False)  # [n_mels, F]

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

    def sound(self, logmel: torch.Tensor) -> torch.Tensor:
        """See `Vocoder.forward`; the same frames give the same sound."""
        target = self.target(logmel)
        draw = torch.Generator().manual_seed(self.cfg.seed)  # its own, the global one stays untouched
        phase = torch.rand(target.shape, generator=draw).to(target) * (2 * torch.pi)
        return self.find(target, torch.polar(target, phase), target.new_zeros(0))[0]

    def stream(self, chunk: int) -> "StreamingGriffinLim":
        """See `Vocoder.stream`."""
        return StreamingGriffinLim(self, chunk)

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
        nothing = vocoder.nothing
        self.frames = nothing.new_zeros(0, vocoder.mel.n_mels)  # those that a window may need still
        self.first = 0  # number of the first of them
        self.made = 0  # frames whose sound is found
        self.past = nothing  # sound up to there, the last frames of it
        self.spectrum = nothing  # complex [F, n]: what the last window found for the frames after `made`
        self.held = nothing  # the last samples found, not given yet

    def push(self, logmel: torch.Tensor) -> torch.Tensor:
        """See `VocoderStream.push`."""
        self.frames = torch.cat((self.frames, self.vocoder.checked(logmel)))
        pieces = []
        while self.first + len(self.frames) - self.made >= self.chunk + self.AHEAD:
            pieces.append(self.window(self.made + self.chunk, last=False))
        return torch.cat(pieces) if pieces else self.vocoder.nothing

    def finish(self) -> torch.Tensor:
        """See `VocoderStream.finish`."""
        rest = self.first + len(self.frames)
        wave = self.window(rest, last=True) if rest > self.made else self.vocoder.nothing
        wave, self.held = torch.cat((wave, self.held)), self.vocoder.nothing
        return wave

    @torch.no_grad()
    def window(self, end: int, last: bool) -> torch.Tensor:
        """Find the sound of the frames from `made` to ``end``; what can be given of it."""
        vocoder, hop = self.vocoder, self.vocoder.hop
        known = min(self.made, self.PAST)  # frames of the window whose sound is given
        start = self.made - known
        target = vocoder.target(self.frames[start - self.first : end + self.AHEAD - self.first])
        draw = torch.Generator().manual_seed(vocoder.cfg.seed + self.made)
        spectrum = torch.polar(target, torch.rand(target.shape, generator=draw).to(target) * (2 * torch.pi))
        given = self.past[len(self.past) - known * hop :]
        if known:
            spectrum[:, :known] = vocoder.transform(given)[:, :known]
            guess = self.spectrum[:, : spectrum.shape[1] - known]
            spectrum[:, known : known + guess.shape[1]] = guess
        wave, spectrum = vocoder.find(target, spectrum, given)
        fade = len(self.held)
        if fade:
            weight = torch.linspace(0, 1, fade + 2, device=wave.device)[1:-1]
            wave[len(given) - fade : len(given)].lerp_(self.held, 1 - weight)
            given = torch.cat((given[:-fade], wave[len(given) - fade : len(given)]))
        stop = (end - start) * hop
        give = stop if last else stop - self.FADE
        out = wave[len(given) - fade : give]
        self.held = vocoder.nothing if last else wave[give:stop].clone()
        self.past = torch.cat((given, wave[len(given) : stop]))[-self.PAST * hop :]
        self.spectrum = spectrum[:, end - start :]
        self.made = end
        keep = max(self.first, end - self.PAST)
        self.frames, self.first = self.frames[keep - self.first :], keep
        return out
