"""From the old voice to the person's, frame by frame: what the old voice says becomes more of the person's speech.

Voice conversion from parallel sentences (Stylianou et al., 1998; Toda et al., 2007), with convolutions in the place of
Gaussian mixtures. It is learned from the pairs of `muomni.voice.pairing`, used once, and not kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from muomni.data.batches import pad
from muomni.layers import Standardise
from muomni.train.task import TrainConfig
from muomni.voice.pairing import Pair

WIDTH, KERNEL, LAYERS = 96, 5, 3


class ConverterConfig(TrainConfig):
    """The converter's training."""

    dropout: float = Field(ge=0, lt=1, description="share of the hidden channels left out")


class Converter(nn.Module):
    """Log-mel of the old voice to the person's: a linear map of each frame, and what convolutions add to it."""

    def __init__(self, n_mels: int, dropout: float) -> None:
        super().__init__()
        self.old, self.new = Standardise(n_mels), Standardise(n_mels)
        self.linear = nn.Linear(n_mels, n_mels)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(n_mels if layer == 0 else WIDTH, WIDTH, KERNEL, padding=KERNEL // 2) for layer in range(LAYERS)
        )
        self.add = nn.Linear(WIDTH, n_mels)
        self.dropout = dropout

    def forward(self, mel: Tensor) -> Tensor:
        """``[B, S, M]`` at 50 Hz to standardised ``[B, S, M]``, see `new`."""
        x = self.old(mel)
        h = x.transpose(1, 2)
        for layer, convolution in enumerate(self.convolutions):
            made = F.dropout(F.gelu(convolution(h)), self.dropout, self.training)
            h = made if layer == 0 else h + made
        return self.linear(x) + self.add(h.transpose(1, 2))

    @torch.no_grad()
    def convert(self, mel: Tensor) -> Tensor:
        """``[S, M]`` of the old voice to ``[S, M]`` of the person."""
        return self.new.inverse(self(mel[None])[0])


@dataclass(frozen=True)
class Example:
    """A sentence in both voices: what is matched, and the person's log-mel ``[T, M]``."""

    pair: Pair
    new: Tensor


class ConverterTask:
    """Sentences of the old voice to the same ones of the person."""

    frozen: dict[str, nn.Module] = {}
    best_by = "mel_error"

    def __init__(self, cfg: ConverterConfig, train: Sequence[Example], valid: Sequence[Example], seed: int) -> None:
        self.cfg, self.train, self.valid = cfg, list(train), list(valid)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.converter = Converter(train[0].new.shape[1], cfg.dropout)
        self.converter.old.measure(torch.cat([one.pair.old for one in train]))
        self.converter.new.measure(torch.cat([one.new for one in train]))
        self.modules = {"converter": self.converter}

    def batch(self, step: int, micro: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sentences: old ``[B, S, M]``, the frames of it that are matched ``[B, T]``, new and real ``[B, T, M]``."""
        rows = [self.train[i] for i in torch.randint(len(self.train), (self.cfg.batch_size,), generator=rng).tolist()]
        real = pad([torch.ones(len(one.new), dtype=torch.bool) for one in rows])
        old, frames, new = (pad(x) for x in zip(*((o.pair.old, o.pair.frames, o.new) for o in rows), strict=True))
        return old, frames, new, real

    def loss(self, batch: tuple[Tensor, Tensor, Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Absolute error, and half the squared one, in standard deviations of the person's bands."""
        old, frames, new, real = batch
        made = self.converter(old)
        made = made.gather(1, frames[..., None].expand(-1, -1, made.shape[-1]))
        error = (made - self.converter.new(new))[real].float()
        padding = 1 - real.float().mean()
        return error.abs().mean() + 0.5 * error.square().mean(), {"padding": padding}

    def evaluate(self) -> dict[str, float]:
        """Mean absolute error of held-out sentences in nats."""
        device, errors = self.converter.linear.weight.device, []
        for one in self.valid:
            made = self.converter.convert(one.pair.old.to(device)).cpu()
            errors.append(float((made[one.pair.frames] - one.new).abs().mean()))
        return {"mel_error": sum(errors) / len(errors)}

    def samples(self, step: int, folder: Path) -> None:
        """None."""
