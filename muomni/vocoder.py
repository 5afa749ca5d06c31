"""What every vocoder is: log-mel frames to sound, as a whole or as the frames come.

`muomni.griffin_lim` needs no training; `muomni.istft_vocoder` is trained by stage d-vocoder. Section ``vocoder`` says
which one speaks.
"""

from typing import Literal, Protocol

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from muomni.config import Section
from muomni.errors import UserError
from muomni.mel import MelConfig


class VocoderConfig(Section):
    """Section ``vocoder``: which one, and the shape of the one that is trained."""

    kind: Literal["griffin_lim", "istft"] = Field(
        description="how frames become sound: griffin_lim needs no training, istft is trained by stage d-vocoder"
    )
    width: int = Field(ge=8, le=1024, description="istft: width of its states")
    layers: int = Field(ge=1, le=32, description="istft: blocks")
    d_ff: int = Field(ge=8, le=4096, description="istft: width of the blocks' feed-forward")
    kernel: int = Field(ge=1, le=31, description="istft: states that a block's convolution sees, 100 a second")
    ahead: int = Field(ge=0, le=15, description="istft: how many of them are later ones, which streaming waits for")

    @model_validator(mode="after")
    def check(self) -> "VocoderConfig":
        """A convolution sees its own state."""
        if self.ahead >= self.kernel:
            raise ValueError(f"ahead {self.ahead} is not below kernel {self.kernel}")
        return self


class VocoderStream(Protocol):
    """Sound as the frames come. However they are divided, all pieces together are the same sound."""

    def push(self, logmel: Tensor) -> Tensor:
        """Take frames ``[T, n_mels]``, and give the sound that is ready, float32 ``[samples]``, perhaps none.

        Raises:
            UserError: if a frame is not finite.
        """
        ...

    def finish(self) -> Tensor:
        """The sound of what is left; all pieces together have `Vocoder.hop` samples a frame."""
        ...


class Vocoder(nn.Module):
    """Frames at 50 Hz (every second frame of the log-mel) to a waveform.

    Attributes:
        mel: how the frames were made.
        hop: samples a frame.
    """

    def __init__(self, mel: MelConfig) -> None:
        super().__init__()
        self.mel, self.hop = mel, 2 * mel.hop_length
        # Also tells where the vocoder is: one without weights has nothing else that does.
        self.register_buffer("nothing", torch.zeros(0), persistent=False)

    nothing: Tensor

    @torch.no_grad()
    def forward(self, logmel: Tensor) -> Tensor:
        """Make the sound.

        Args:
            logmel: ``[T, n_mels]`` natural log-mel at 50 Hz, any float type, on any device.

        Returns:
            float32 ``[T * hop]`` in [-1, 1], where the vocoder is.

        Raises:
            UserError: if there is no frame, or one that is not finite.
            ValueError: for another shape.
        """
        if len(logmel) == 0:
            raise UserError("vocoder: no frames to make a sound from; the text may be empty")
        return self.sound(self.checked(logmel))

    def checked(self, logmel: Tensor) -> Tensor:
        """Frames ``[T, n_mels]`` as float32 where the vocoder is.

        Raises:
            UserError: if one is not finite.
            ValueError: for another shape.
        """
        if logmel.ndim != 2 or logmel.shape[1] != self.mel.n_mels:
            raise ValueError(f"expected [T, {self.mel.n_mels}], got {tuple(logmel.shape)}")
        logmel = logmel.to(self.nothing)
        if not bool(torch.isfinite(logmel).all()):
            raise UserError("vocoder: the frames hold NaN or infinite values; train codec and Talker again")
        return logmel

    def sound(self, logmel: Tensor) -> Tensor:
        """`forward` of frames that were checked."""
        raise NotImplementedError

    def stream(self, chunk: int) -> VocoderStream:
        """The same as the frames come.

        Args:
            chunk: frames that become sound at once, 50 a second.
        """
        raise NotImplementedError
