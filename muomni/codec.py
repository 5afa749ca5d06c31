"""The speech codec: residual vector quantisation of log-mel frames (van den Oord et al., 2017; Zeghidour et al., 2021).

A linear encoder, two codebooks and one convolution as decoder, 49,344 parameters at the specified size. The codebooks
are learned by moving averages of the vectors that choose them, and codes that nobody chooses are moved to data.
"""

from typing import cast

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from muomni.config import Section
from muomni.layers import Standardise


class CodecConfig(Section):
    """Shape of the codec."""

    n_mels: int = Field(ge=8, le=256, description="bins of the log-mel frames")
    code_width: int = Field(ge=2, le=512, description="width of a code vector")
    codebooks: int = Field(ge=1, le=16, description="residual codebooks")
    codes: int = Field(ge=2, le=4096, description="codes of each codebook")
    decay: float = Field(gt=0, lt=1, description="share of the old value in the codebooks' moving averages")
    kernel: int = Field(ge=1, le=15, description="frames that the decoder's convolution sees")

    @model_validator(mode="after")
    def check(self) -> "CodecConfig":
        """The convolution has a middle."""
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} is even; a convolution needs a middle")
        return self


class Quantiser(nn.Module):
    """One codebook: nearest neighbour, learned by moving averages (van den Oord et al., 2017, appendix A)."""

    counts: Tensor
    sums: Tensor

    def __init__(self, codes: int, width: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        # Not trained by gradient, but as much a part of the model as any weight.
        self.codebook = nn.Parameter(torch.randn(codes, width), requires_grad=False)
        self.register_buffer("counts", torch.ones(codes), persistent=False)
        self.register_buffer("sums", self.codebook.detach().clone(), persistent=False)

    def nearest(self, x: Tensor) -> Tensor:
        """Index of the nearest code for each vector ``[..., W]``, int64 ``[...]``."""
        with torch.autocast(x.device.type, enabled=False):  # half precision cannot tell near codes apart
            squares = self.codebook.square().sum(-1)  # |x - c|^2 = |x|^2 - 2 x.c + |c|^2; |x|^2 is the same for all c
            return (squares - 2 * x.float() @ self.codebook.T).argmin(-1)

    def start(self, x: Tensor, rng: torch.Generator) -> None:
        """Put the codes where data is: k-means of ``x`` ``[N, W]`` from random members."""
        pick = torch.randperm(len(x), generator=rng)[: len(self.codebook)]
        if len(pick) < len(self.codebook):
            pick = torch.randint(len(x), (len(self.codebook),), generator=rng)
        self.codebook.copy_(x[pick])
        for _ in range(10):
            code = self.nearest(x)
            counts = torch.bincount(code, minlength=len(self.codebook)).clamp_min(1)[:, None]
            means = torch.zeros_like(self.codebook).index_add_(0, code, x) / counts
            used = torch.bincount(code, minlength=len(self.codebook)) > 0
            self.codebook[used] = means[used]
        self.counts.fill_(len(x) / len(self.codebook))
        self.sums.copy_(self.codebook * self.counts[:, None])

    @torch.no_grad()
    def learn(self, x: Tensor, code: Tensor, rng: torch.Generator) -> None:
        """Move the codes towards the vectors ``x`` ``[N, W]`` that chose them, ``[N]``; revive codes nobody chooses."""
        x = x.float()  # under autocast it comes in half precision, too coarse to average in
        counts = torch.bincount(code, minlength=len(self.codebook)).to(x)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, code, x), 1 - self.decay)
        self.codebook.copy_(self.sums / self.counts.clamp_min(1e-5)[:, None])
        dead = self.counts < 0.02 * len(x) / len(self.codebook)
        if dead.any():
            pick = torch.randint(len(x), (int(dead.sum()),), generator=rng)
            self.codebook[dead] = x[pick]
            self.counts[dead] = len(x) / len(self.codebook)
            self.sums[dead] = x[pick] * self.counts[dead, None]


class Codec(nn.Module):
    """Log-mel frames to codes and back, 50 frames a second."""

    def __init__(self, cfg: CodecConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.standardise = Standardise(cfg.n_mels)
        self.encoder = nn.Linear(cfg.n_mels, cfg.code_width)
        self.quantisers = nn.ModuleList(Quantiser(cfg.codes, cfg.code_width, cfg.decay) for _ in range(cfg.codebooks))
        self.decoder = nn.Conv1d(cfg.code_width, cfg.n_mels, cfg.kernel, padding=cfg.kernel // 2)

    @property
    def books(self) -> list[Quantiser]:
        """The codebooks in order."""
        return cast(list[Quantiser], list(self.quantisers))

    def quantise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded frames ``[..., W]`` to codes ``[..., Q]`` int64 and the sum of their vectors ``[..., W]``."""
        codes, total = [], torch.zeros_like(z)
        for quantiser in self.books:
            code = quantiser.nearest(z - total)
            codes.append(code)
            total = total + F.embedding(code, quantiser.codebook)
        return torch.stack(codes, dim=-1), total

    @torch.no_grad()
    def encode(self, mel: Tensor) -> Tensor:
        """Log-mel ``[..., T, M]`` at 50 Hz to codes ``[..., T, Q]`` int64; each frame by itself."""
        return self.quantise(self.encoder(self.standardise(mel)))[0]

    def reconstruct(self, vectors: Tensor) -> Tensor:
        """Code vectors ``[B, T, W]`` to standardised log-mel ``[B, T, M]``."""
        return self.decoder(vectors.transpose(1, 2)).transpose(1, 2)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``[B, T, Q]`` of recordings without padding to log-mel ``[B, T, M]`` at 50 Hz."""
        vectors = torch.stack(
            [F.embedding(codes[..., q], quantiser.codebook) for q, quantiser in enumerate(self.books)]
        ).sum(0)
        return self.standardise.inverse(self.reconstruct(vectors))

    def start(self, mel: Tensor, rng: torch.Generator) -> None:
        """Measure the statistics of frames ``mel`` ``[N, M]`` and put the codebooks where their encodings are."""
        with torch.no_grad():
            self.standardise.measure(mel)
            rest = self.encoder(self.standardise(mel))
            for quantiser in self.books:
                quantiser.start(rest, rng)
                rest = rest - F.embedding(quantiser.nearest(rest), quantiser.codebook)

    def training_loss(
        self, mel: Tensor, mask: Tensor, commitment: float, rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction and commitment loss of a batch; the codebooks learn on the way.

        The gradient passes the quantiser as if it were not there (straight-through), and the commitment term pulls the
        encoder towards the codes.

        Args:
            mel: ``[B, T, M]`` log-mel at 50 Hz.
            mask: ``[B, T]``, True at real frames.
            commitment: weight of the commitment term.
            rng: chooses where revived codes go.

        Returns:
            The loss, the mean absolute error in standard deviations, and the codes ``[N, Q]`` of the real frames.
        """
        target = self.standardise(mel)
        z = self.encoder(target).float()
        total, codes = torch.zeros_like(z), []
        commit = z.new_zeros(())
        for quantiser in self.books:
            rest = z - total
            code = quantiser.nearest(rest.detach())
            vector = F.embedding(code, quantiser.codebook)
            commit = commit + (rest - vector)[mask].square().mean()
            if self.training:
                quantiser.learn(rest.detach()[mask], code[mask], rng)
            total = total + vector
            codes.append(code[mask])
        through = (z + (total - z).detach()) * mask[..., None]
        error = (self.reconstruct(through) - target)[mask]
        loss = error.abs().mean() + 0.5 * error.square().mean() + commitment * commit
        return loss, error.detach().abs().mean(), torch.stack(codes, dim=-1)


class DecoderStream:
    """`Codec.decode` as the codes come: the same frames, each as soon as the convolution has its neighbours."""

    def __init__(self, codec: Codec) -> None:
        self.codec, self.reach = codec, codec.cfg.kernel // 2
        self.codes = torch.zeros(0, codec.cfg.codebooks, dtype=torch.int64)  # those that a frame may need still
        self.done = 0  # frames of them that are given

    def push(self, codes: Tensor) -> Tensor:
        """Take codes ``[T, Q]`` and give the log-mel ``[n, M]`` that is ready, perhaps none."""
        self.codes = torch.cat((self.codes.to(codes.device), codes))
        return self.give(len(self.codes) - self.reach)

    def finish(self) -> Tensor:
        """The log-mel of the last frames."""
        return self.give(len(self.codes))

    def give(self, end: int) -> Tensor:
        """Frames up to ``end`` of those at hand that were not given yet."""
        if end <= self.done:
            return torch.zeros(0, self.codec.cfg.n_mels, device=self.codes.device)
        mel = self.codec.decode(self.codes[None])[0, self.done : end]
        keep = max(0, end - self.reach)
        self.codes, self.done = self.codes[keep:], end - keep
        return mel
