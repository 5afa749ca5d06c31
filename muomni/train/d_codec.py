"""Stage D, first part: the codec learns to write log-mel frames as codes and to read them back."""

from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from muomni.codec import Codec, CodecConfig
from muomni.data.recording_stream import RecordingStream, first_recordings, too_large
from muomni.data.speech import load_recordings
from muomni.errors import UserError
from muomni.griffin_lim import GriffinLim, GriffinLimConfig
from muomni.media import save_audio
from muomni.mel import MelConfig
from muomni.train.loop import TrainConfig

MEASURED = 500  # recordings in whose frames the codebooks begin


class CodecStageConfig(TrainConfig):
    """Section ``d_codec``."""

    speaker: str = Field(description="the voice to learn; empty for all speakers")
    segment: int = Field(ge=4, le=1000, description="frames of a training segment, 50 a second")
    commitment: float = Field(ge=0, description="weight of the encoder's pull towards the codes")
    valid_recordings: int = Field(ge=1, description="recordings coded at each evaluation")
    # Files of parameters from before there was a choice go on being read.
    stream_over_mb: float = Field(
        default=4000.0, ge=0, description="megabytes of training shards over which they are read as needed, not kept"
    )


class CodecTask:
    """Segments of log-mel to themselves, through codes."""

    frozen: dict[str, torch.nn.Module] = {}
    best_by = ""

    def __init__(
        self,
        cfg: CodecStageConfig,
        model: CodecConfig,
        mel: MelConfig,
        griffin_lim: GriffinLimConfig,
        shards: str | Path,
        seed: int,
    ) -> None:
        self.cfg, self.mel = cfg, mel
        self.codec = Codec(model)
        self.modules = {"codec": self.codec}
        # The codec sees every second frame of the shared log-mel: 50 a second.
        speakers = [cfg.speaker] if cfg.speaker else None
        self.stream: RecordingStream | None = None
        self.train: list[Tensor] = []  # those in memory
        if too_large(shards, cfg.stream_over_mb):
            self.stream = RecordingStream(shards, cfg.batch_size, seed, lambda r: True, speakers, by_length=False)
            some: list[Tensor] = []
            for number in range(self.stream.per_epoch):
                some += self.streamed(number)
                if len(some) >= MEASURED:
                    break
            valid = first_recordings(shards, "valid", cfg.valid_recordings, speakers)
        else:
            self.train = some = [r.mel[::2] for r in load_recordings(shards, "train", speakers)]
            valid = load_recordings(shards, "valid", speakers)[: cfg.valid_recordings]
        self.valid = [r.mel[::2].float() for r in valid]
        if not some or not self.valid:
            raise UserError(f"d_codec.speaker: no recording of '{cfg.speaker}' in {shards}")
        self.vocoder = GriffinLim(mel, griffin_lim)
        rng = torch.Generator().manual_seed(seed)
        frames = torch.cat(some[:MEASURED]).float()
        self.codec.start(frames[torch.randperm(len(frames), generator=rng)[:20000]], rng)

    def streamed(self, number: int) -> list[Tensor]:
        """Log-mels of a batch of the stream ``[T, M]`` each, at 50 frames a second; one at least."""
        assert self.stream is not None
        return [r.mel[::2] for r in self.stream.at(number)]

    def recordings(self, number: int, rng: torch.Generator) -> list[Tensor]:
        """Log-mels that segments are taken from, one a segment.

        Of those in memory any. A stream's batch may hold fewer of the speaker than it has places: then they take turns.
        """
        size = self.cfg.batch_size
        if self.stream is None:
            return [self.train[i] for i in torch.randint(len(self.train), (size,), generator=rng).tolist()]
        rows = self.streamed(number)
        return [rows[i % len(rows)] for i in range(size)]

    def batch(self, step: int, micro: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Segments ``[B, T, M]`` and which of their frames are real ``[B, T]``."""
        size = self.cfg.segment
        mels = torch.zeros(self.cfg.batch_size, size, self.codec.cfg.n_mels)
        mask = torch.zeros(self.cfg.batch_size, size, dtype=torch.bool)
        for row, whole in enumerate(self.recordings(self.cfg.number(step, micro), rng)):
            start = int(torch.randint(max(1, len(whole) - size + 1), (), generator=rng))
            part = whole[start : start + size]
            mels[row, : len(part)] = part.float()
            mask[row, : len(part)] = True
        return mels, mask

    def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Reconstruction and commitment; see `Codec.training_loss`."""
        mels, mask = batch
        rng = torch.Generator().manual_seed(step)  # where revived codes go
        loss, error, codes = self.codec.training_loss(mels, mask, self.cfg.commitment, rng)
        used = [float(codes[:, q].unique().numel()) / self.codec.cfg.codes for q in range(codes.shape[1])]
        return loss, {"mel_error": error, "codes_used": min(used), "padding": 1 - float(mask.float().mean())}

    def evaluate(self) -> dict[str, float]:
        """Mean absolute error of the log-mel in nats, and the share of each codebook that is used."""
        device = self.codec.encoder.weight.device
        errors, codes = [], []
        for mel in self.valid:
            code = self.codec.encode(mel.to(device))
            errors.append((self.codec.decode(code[None])[0].cpu() - mel).abs().mean())
            codes.append(code.cpu())
        together = torch.cat(codes)
        scores = {"mel_error": float(torch.stack(errors).mean())}
        for q in range(together.shape[1]):
            scores[f"codes_used_{q}"] = together[:, q].unique().numel() / self.codec.cfg.codes
        return scores

    def samples(self, step: int, folder: Path) -> None:
        """A recording through the codec and the vocoder, and through the vocoder alone."""
        device = self.codec.encoder.weight.device
        mel = self.valid[0]
        decoded = self.codec.decode(self.codec.encode(mel.to(device))[None])[0].cpu().float()
        save_audio(folder / "vocoder.wav", self.vocoder(mel), self.mel.sample_rate)
        save_audio(folder / "codec.wav", self.vocoder(decoded), self.mel.sample_rate)
