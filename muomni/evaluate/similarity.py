"""How alike two voices sound, by a speaker encoder that shares nothing with the model (Wan et al., 2018).

Resemblyzer's encoder, three LSTMs that learned from 1,800 hours of some 8,400 people to tell who speaks. Its package
carries the weights; they are read without the package's code, which needs compilers and further packages. Its
preparation is done again here: 40 mel bands of 16 kHz sound, windows of 1.6 s, the mean of what is found in each.
Silence is not cut out within a sentence, as it is there.

What the figures mean, and how often it is wrong, is in docs/adding-a-voice.md.
"""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from muomni.errors import UserError

PACKAGE, WEIGHTS = "resemblyzer", "pretrained.pt"
INSTALL = "pip install --no-deps resemblyzer"
RATE, WINDOW, HOP, BANDS = 16000, 400, 160, 40
LOUDNESS = 10 ** (-30 / 20)  # softer sound is made as loud: -30 dB of full scale
FRAMES, STEP, COVERED = 160, 77, 0.75  # of a window, between two, and share of the last one that must be there


class SpeakerEncoder(nn.Module):
    """Sound to a direction that says who speaks.

    Raises:
        UserError: if the package with the weights is not installed.
    """

    name = "Resemblyzer 0.1.4"
    bands: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        try:
            files = distribution(PACKAGE).files or []
        except PackageNotFoundError:
            raise UserError(f"the package {PACKAGE} with the speaker encoder is missing; {INSTALL}") from None
        path = next((Path(str(file.locate())) for file in files if file.name == WEIGHTS), None)
        if path is None or not path.is_file():
            raise UserError(f"the package {PACKAGE} holds no {WEIGHTS}; {INSTALL} again")
        state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        self.load_state_dict({key: value for key, value in state.items() if key.startswith(("lstm.", "linear."))})
        bands = melscale_fbanks(WINDOW // 2 + 1, 0.0, RATE / 2, BANDS, RATE, norm="slaney", mel_scale="slaney")
        self.register_buffer("bands", bands, persistent=False)
        self.eval()

    @torch.no_grad()
    def forward(self, wave: Tensor) -> Tensor:
        """A recording, float32 ``[samples]`` at 16 kHz and not silent, to ``[256]`` of length 1."""
        wave = wave.float().cpu()
        wave = wave * max(1.0, LOUDNESS / float(wave.square().mean().sqrt()))
        spectra = torch.stft(
            wave, WINDOW, HOP, window=torch.hann_window(WINDOW), pad_mode="constant", return_complex=True
        )
        mel = spectra.abs().square().T @ self.bands.to(wave)  # [T, bands]
        starts = list(range(0, max(1, len(mel) - FRAMES + STEP + 1), STEP))
        if len(starts) > 1 and (len(mel) - starts[-1]) / FRAMES < COVERED:
            starts.pop()
        mel = F.pad(mel, (0, 0, 0, max(0, starts[-1] + FRAMES - len(mel))))
        _, (hidden, _) = self.lstm(torch.stack([mel[start : start + FRAMES] for start in starts]))
        return F.normalize(F.normalize(self.linear(hidden[-1]).relu(), dim=1).mean(0), dim=0)

    def voice(self, waves: Sequence[Tensor]) -> Tensor:
        """Several recordings of one speaker to ``[256]`` of length 1."""
        return F.normalize(torch.stack([self(wave) for wave in waves]).mean(0), dim=0)


def find_encoder() -> SpeakerEncoder | None:
    """The encoder, or None if its package is not installed."""
    try:
        return SpeakerEncoder()
    except UserError:
        return None


def equal_error_rate(same: Sequence[float], different: Sequence[float]) -> tuple[float, float]:
    """Where as many pairs of one speaker are taken for two as pairs of two for one: that share, and the threshold."""
    thresholds = sorted({*same, *different})
    best = (2.0, 1.0, 0.0)
    for threshold in thresholds:
        missed = sum(score < threshold for score in same) / len(same)
        taken = sum(score >= threshold for score in different) / len(different)
        best = min(best, (abs(missed - taken), (missed + taken) / 2, threshold))
    return best[1], best[2]
