"""A trained vocoder: a spectrum from log-mel frames, and its inverse transform (in the manner of Vocos, Siuzdak, 2023).

A frame of 20 ms becomes two states of 10 ms. Blocks of ConvNeXt (Liu et al., 2022) work on them, and the last layer
says for each the magnitudes and phases of a short spectrum. Their inverse transforms, overlapped and added, are the
sound: no layer has to make samples, so it takes a fraction of the time of Griffin-Lim.

The convolutions look further back than ahead, so that speech can be made as it comes, with the very same samples.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from muomni.layers import Standardise
from muomni.mel import MelConfig
from muomni.vocoder import Vocoder, VocoderConfig

OVERLAP = 4  # windows over every sample: a transform is that many steps long
LOUDEST = 6.0  # natural logarithm of the largest magnitude: far above any sample in [-1, 1], far below infinity


class ConvNeXt(nn.Module):
    """A convolution in time, channel by channel, and a feed-forward, added to the input."""

    def __init__(self, width: int, hidden: int, kernel: int, ahead: int, scale: float) -> None:
        super().__init__()
        self.padding = (kernel - 1 - ahead, ahead)
        self.time = nn.Conv1d(width, width, kernel, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, T, D]`` to ``[B, T, D]``."""
        y = self.time(F.pad(x.transpose(1, 2), self.padding)).transpose(1, 2)
        return x + self.scale * self.down(F.gelu(self.up(self.norm(y))))


class ISTFTVocoder(Vocoder):
    """See the module's text.

    Attributes:
        back, ahead: frames before and after a frame that its sound depends on.
    """

    window: Tensor

    def __init__(self, mel: MelConfig, cfg: VocoderConfig) -> None:
        super().__init__(mel)
        self.cfg, self.step = cfg, mel.hop_length
        self.n_fft = OVERLAP * self.step
        self.standardise = Standardise(mel.n_mels)
        self.divide = nn.Conv1d(mel.n_mels, 2 * cfg.width, 3, padding=1)
        self.norm = nn.LayerNorm(cfg.width)
        self.blocks = nn.ModuleList(
            ConvNeXt(cfg.width, cfg.d_ff, cfg.kernel, cfg.ahead, 1 / cfg.layers) for _ in range(cfg.layers)
        )
        self.last_norm = nn.LayerNorm(cfg.width)
        self.head = nn.Linear(cfg.width, self.n_fft + 2)
        with torch.no_grad():  # soft at first: loud noise would have to be unlearned
            self.head.bias[: self.n_fft // 2 + 1].fill_(-2.0)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)
        # The first state of a frame sees `back` states of 10 ms; a sample also hears two windows before its own.
        self.back = 1 + (cfg.layers * (cfg.kernel - 1 - cfg.ahead) + OVERLAP + 1) // 2
        self.ahead = 1 + (cfg.layers * cfg.ahead + OVERLAP + 1) // 2

    def spectrum(self, logmel: Tensor, checkpointing: bool = False) -> Tensor:
        """Log-mel ``[B, T, n_mels]`` at 50 Hz to complex ``[B, 2 T, n_fft / 2 + 1]``; see `waves`."""
        b, t, _ = logmel.shape
        x = self.divide(self.standardise(logmel).transpose(1, 2)).transpose(1, 2)  # [B, T, 2 D]
        x = self.norm(x.reshape(b, 2 * t, self.cfg.width))
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if checkpointing else block(x)
        with torch.autocast(x.device.type, enabled=False):  # half precision is noise of its own in phases
            loud, phase = self.head(self.last_norm(x.float())).chunk(2, dim=-1)
            return torch.polar(loud.clamp(max=LOUDEST).exp(), phase)

    def overlap(self, spectrum: Tensor) -> Tensor:
        """Spectra ``[B, N, n_fft / 2 + 1]``, the n-th centred on sample ``n * step``, to sound ``[B, N * step]``."""
        count, half = spectrum.shape[1], OVERLAP // 2

        def added(frames: Tensor) -> Tensor:
            """Frames ``[B, N, n_fft]`` laid over each other, ``[B, N * step]``."""
            pieces = frames.unflatten(-1, (OVERLAP, self.step))
            total = sum(F.pad(pieces[:, :, k], (0, 0, k, OVERLAP - 1 - k)) for k in range(OVERLAP))
            assert isinstance(total, Tensor)
            return total[:, half : half + count].flatten(1)

        squares = self.window.square().expand(1, count, -1)
        return added(torch.fft.irfft(spectrum, self.n_fft) * self.window) / added(squares).clamp_min(1e-4)

    def waves(self, logmel: Tensor, checkpointing: bool = False) -> Tensor:
        """Log-mel ``[B, T, n_mels]`` at 50 Hz to waveforms ``[B, T * hop]``, with gradients, not clipped.

        With `checkpointing` the backward pass computes the blocks again instead of storing what they computed.
        """
        return self.overlap(self.spectrum(logmel, checkpointing))

    def sound(self, logmel: Tensor) -> Tensor:
        """See `Vocoder.forward`."""
        return self.waves(logmel[None])[0].clamp(-1, 1)

    def stream(self, chunk: int) -> "StreamingISTFT":
        """See `Vocoder.stream`."""
        return StreamingISTFT(self, chunk)


class StreamingISTFT:
    """Sound as the frames come: the same samples as of the whole, up to rounding.

    Args:
        vocoder: its weights.
        chunk: frames that come out at once, 50 a second.
    """

    def __init__(self, vocoder: ISTFTVocoder, chunk: int) -> None:
        self.vocoder, self.chunk = vocoder, chunk
        self.frames = vocoder.nothing.new_zeros(0, vocoder.mel.n_mels)  # those that a sample may need still
        self.done = 0  # frames of them whose sound was given

    def push(self, logmel: Tensor) -> Tensor:
        """See `VocoderStream.push`."""
        self.frames = torch.cat((self.frames, self.vocoder.checked(logmel)))
        pieces = []
        while len(self.frames) - self.done >= self.chunk + self.vocoder.ahead:
            pieces.append(self.give(self.done + self.chunk))
        return torch.cat(pieces) if pieces else self.vocoder.nothing

    def finish(self) -> Tensor:
        """See `VocoderStream.finish`."""
        return self.give(len(self.frames)) if len(self.frames) > self.done else self.vocoder.nothing

    @torch.no_grad()
    def give(self, end: int) -> Tensor:
        """The sound of the frames up to ``end`` that was not given yet."""
        hop, back = self.vocoder.hop, self.vocoder.back
        wave = self.vocoder.sound(self.frames[: end + self.vocoder.ahead])[self.done * hop : end * hop]
        keep = max(0, end - back)
        self.frames, self.done = self.frames[keep:], end - keep
        return wave
