"""The audio encoder: an AuT-Tiny that turns log-mel at 100 Hz into states at 12.5 Hz, and its CTC head.

At 12.5 states a second a sentence has more characters than states, and a CTC target longer than its input is
impossible. The head therefore emits several character slots from each state (4 slots: 50 a second), so that what
does not fit can be counted and is next to nothing.
"""

import unicodedata

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from muomni.config import Section
from muomni.layers import MLP, Block, Stack, Standardise, initialise

CHARACTERS = " 'abcdefghijklmnopqrstuvwxyz"
BLANK = len(CHARACTERS)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def normalise_with_offsets(text: str) -> tuple[str, list[int]]:
    """What is heard of a text, and which character of the text each of its characters comes from.

    Lower case without accents, digits spelled one by one, only letters, apostrophes and single spaces between words.
    """
    heard: list[str] = []
    offsets: list[int] = []
    for offset, written in enumerate(text):
        for c in unicodedata.normalize("NFKD", written.casefold().replace("’", "'")):  # a letter, then its accents
            if unicodedata.combining(c):
                continue
            spelled = f" {DIGITS[int(c)]} " if c in "0123456789" else c if c in CHARACTERS else " "
            for s in spelled:
                if s != " " or (heard and heard[-1] != " "):
                    heard.append(s)
                    offsets.append(offset)
    if heard and heard[-1] == " ":
        heard.pop()
        offsets.pop()
    return "".join(heard), offsets


def normalise(text: str) -> str:
    """What is heard of a text: the first part of `normalise_with_offsets`."""
    return normalise_with_offsets(text)[0]


def encode_characters(text: str) -> list[int]:
    """Indices into `CHARACTERS` of a normalised text."""
    return [CHARACTERS.index(c) for c in normalise(text)]


class AudioEncoderConfig(Section):
    """Shape of the audio encoder and its training-only CTC head."""

    n_mels: int = Field(ge=8, le=256, description="bins of the log-mel input")
    channels: int = Field(ge=4, le=512, description="channels of the three convolutions")
    d_model: int = Field(ge=8, le=1024, description="width of the states")
    n_layers: int = Field(ge=1, le=32, description="transformer layers")
    n_heads: int = Field(ge=1, le=32, description="attention heads")
    d_ff: int = Field(ge=8, le=8192, description="width of the feed-forward")
    positions: int = Field(ge=16, le=8192, description="states of one recording at most, 12.5 a second")
    slots: int = Field(ge=1, le=8, description="characters that the CTC head can emit from one state")

    @model_validator(mode="after")
    def check(self) -> "AudioEncoderConfig":
        """Heads divide the width."""
        if self.d_model % (2 * self.n_heads):
            raise ValueError(f"d_model {self.d_model} is not a multiple of 2 x n_heads {self.n_heads}")
        return self


def frames_after(length: Tensor) -> Tensor:
    """Frames left of ``length`` after one stride-2 convolution."""
    return (length + 1) // 2


def mask_of(lengths: Tensor, positions: int) -> Tensor:
    """``[B]`` lengths to ``[B, positions]``, True at real positions."""
    return torch.arange(positions, device=lengths.device)[None] < lengths[:, None]


class AudioEncoder(nn.Module):
    """Log-mel to states: three stride-2 convolutions over time and frequency, then a transformer."""

    def __init__(self, cfg: AudioEncoderConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.standardise = Standardise(cfg.n_mels)
        c = cfg.channels
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, c, kernel_size=3, stride=2, padding=1) for before in (1, c, c)
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on a CPU
        bins = cfg.n_mels
        for _ in range(3):
            bins = (bins + 1) // 2
        self.project = nn.Linear(c * bins, cfg.d_model)
        blocks = [
            Block(cfg.d_model, cfg.n_heads, cfg.n_heads, MLP(cfg.d_model, cfg.d_ff), causal=False)
            for _ in range(cfg.n_layers)
        ]
        self.stack = Stack(blocks, cfg.d_model, cfg.positions)
        initialise(self.stack, cfg.n_layers)

    def forward(self, mel: Tensor, lengths: Tensor, checkpointing: bool = False) -> tuple[Tensor, Tensor]:
        """Encode recordings.

        Padding never changes a result: what lies beyond a recording's end is set to zero before each convolution,
        as at the end of an unpadded one, and masked in attention.

        Args:
            mel: ``[B, T, M]`` natural-log mel at 100 Hz.
            lengths: ``[B]`` int64, real frames of each.
            checkpointing: recompute each layer in the backward pass instead of storing it.

        Returns:
            States ``[B, ceil(T / 8), D]`` and their lengths ``[B]``.
        """
        x = self.standardise(mel)[:, None]  # [B, 1, T, M]
        for convolution in self.convolutions:
            x = x.mul_(mask_of(lengths, x.shape[2])[:, None, :, None])  # in place: the largest tensors of all are here
            x = F.gelu(convolution(x))  # [B, C, T / 2, M / 2]
            lengths = frames_after(lengths)
        x = self.project(x.transpose(1, 2).flatten(2))  # [B, T / 8, D]
        mask = mask_of(lengths, x.shape[1])
        # A row without any real position has nothing to attend to; its first (unused) position keeps softmax finite.
        mask[:, 0] = True
        return self.stack(x, mask=mask, checkpointing=checkpointing), lengths


class CTCHead(nn.Module):
    """Training-only: states to log-probabilities of characters, several slots a state (Graves et al., 2006)."""

    def __init__(self, cfg: AudioEncoderConfig) -> None:
        super().__init__()
        self.slots = cfg.slots
        self.project = nn.Linear(cfg.d_model, cfg.slots * (len(CHARACTERS) + 1))

    def forward(self, states: Tensor) -> Tensor:
        """``[B, T, D]`` to ``[B, T * slots, characters + 1]``; the last symbol is the blank."""
        b, t, _ = states.shape
        return self.project(states).view(b, t * self.slots, -1).float().log_softmax(-1)

    def transcribe(self, states: Tensor, lengths: Tensor) -> list[str]:
        """Best path, repeats and blanks removed, for each recording ``[B, T, D]`` with ``[B]`` lengths."""
        best = self(states).argmax(-1)  # [B, T * slots]
        texts = []
        for row, length in zip(best, lengths.tolist(), strict=True):
            symbols = torch.unique_consecutive(row[: length * self.slots]).tolist()
            texts.append("".join(CHARACTERS[s] for s in symbols if s != BLANK).strip())
        return texts
