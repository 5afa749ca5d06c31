"""Stage B: the audio encoder learns to hear, by CTC over characters (Graves et al., 2006)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from muomni.audio_encoder import BLANK, AudioEncoder, AudioEncoderConfig, CTCHead, encode_characters, normalise
from muomni.data.batches import Buckets, padding_share
from muomni.data.recording_stream import RecordingStream, first_recordings, too_large
from muomni.data.speech import Recording, collate_mels, load_recordings
from muomni.errors import UserError
from muomni.evaluate.text_scores import character_error_rate
from muomni.train.loop import TrainConfig
from muomni.train.shown import save_mel
from muomni.train.split import runs, share

DRAWN = 4  # recordings among the samples whose log-mel is a picture
MEASURED = 300  # recordings whose mean and deviation standardise all


class AudioStageConfig(TrainConfig):
    """Section ``b_audio_encoder``."""

    mask_bins: int = Field(ge=0, le=64, description="widest band of mel bins hidden in training, twice a recording")
    mask_frames: int = Field(ge=0, le=200, description="longest stretch of frames hidden in training")
    valid_recordings: int = Field(ge=1, description="recordings transcribed at each evaluation")
    # Files of parameters from before there was a choice go on being read.
    stream_over_mb: float = Field(
        default=4000.0, ge=0, description="megabytes of training shards over which they are read as needed, not kept"
    )


def fits(text: str, frames: int, slots: int) -> bool:
    """Whether CTC can emit a text: a slot for each character and one between two equal ones."""
    target = encode_characters(text)
    repeats = sum(a == b for a, b in zip(target, target[1:], strict=False))
    states = -(-frames // 8)
    return 0 < len(target) + repeats <= states * slots


class AudioTask:
    """Recordings to characters."""

    frozen: dict[str, torch.nn.Module] = {}
    best_by = ""

    def __init__(self, cfg: AudioStageConfig, model: AudioEncoderConfig, shards: str | Path, seed: int) -> None:
        self.cfg, self.checkpointing = cfg, cfg.checkpointing
        self.encoder, self.head = AudioEncoder(model), CTCHead(model)
        self.modules = {"audio_encoder": self.encoder, "ctc": self.head}
        self.slots = model.slots
        self.train: list[Recording] = []  # those in memory
        self.impossible: int | None = None
        self.at: Callable[[int], list[Recording]]  # the recordings of a batch by its number
        if too_large(shards, cfg.stream_over_mb):
            stream = RecordingStream(shards, cfg.batch_size, seed, self.learnable)
            self.at, some = stream.at, stream.first(MEASURED)
            self.valid = first_recordings(shards, "valid", cfg.valid_recordings)
        else:
            everything = load_recordings(shards, "train")
            self.train = [r for r in everything if self.learnable(r)]
            # What CTC cannot learn is left out and counted, never hidden behind an infinite loss set to zero.
            self.impossible, some = len(everything) - len(self.train), self.train[:MEASURED]
            if not self.train:
                raise UserError(f"{shards}: none of {len(everything)} recordings is long enough for its text")
            buckets = Buckets([len(r.mel) for r in self.train], cfg.batch_size, seed)
            self.at = lambda number: [self.train[i] for i in buckets.at(number)]
            self.valid = load_recordings(shards, "valid")[: cfg.valid_recordings]
        self.encoder.standardise.measure(torch.cat([r.mel.float() for r in some]))

    def learnable(self, recording: Recording) -> bool:
        """Whether a recording is long enough for its text."""
        return fits(recording.text, len(recording.mel), self.slots)

    def batch(self, step: int, micro: int, rng: torch.Generator) -> dict[str, Any]:
        """Log-mels with hidden bands and stretches (Park et al., 2019), and their characters."""
        rows = self.at(self.cfg.number(step, micro))
        mels, lengths = collate_mels([r.mel for r in rows])
        mean = self.encoder.standardise.mean.cpu()
        for mel, length in zip(mels, lengths.tolist(), strict=True):
            for _ in range(2):
                start, width = hidden(mel.shape[1], self.cfg.mask_bins, rng)
                mel[:, start : start + width] = mean[start : start + width]
            start, width = hidden(length, self.cfg.mask_frames, rng)
            mel[start : start + width] = mean
        targets = [torch.tensor(encode_characters(r.text)) for r in rows]
        return {
            "mels": mels,
            "lengths": lengths,
            "targets": torch.cat(targets),
            "target_lengths": torch.tensor([len(t) for t in targets]),
        }

    def loss(self, batch: dict[str, Any], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """CTC loss in nats a character."""
        states, lengths = self.encoder(batch["mels"], batch["lengths"], self.checkpointing)
        log_probs = self.head(states)  # [B, T * slots, C + 1]
        total = F.ctc_loss(
            log_probs.transpose(0, 1),
            batch["targets"],
            lengths * self.head.slots,
            batch["target_lengths"],
            blank=BLANK,
            reduction="sum",
        )
        values: dict[str, float | Tensor] = {"padding": padding_share(batch["lengths"])}
        if self.impossible is None:  # of a stream nobody knows beforehand how much of it cannot be learned
            values["recordings"] = float(len(batch["lengths"]))
        return total / batch["target_lengths"].sum(), values

    def split(self, batch: dict[str, Any], parts: int) -> list[tuple[dict[str, Any], float]]:
        """Fewer recordings at a time; the loss is a mean over characters."""
        ends = [0, *batch["target_lengths"].cumsum(0).tolist()]  # of each recording's characters
        found = []
        for rows in runs(len(batch["lengths"]), parts):
            lengths, characters = batch["lengths"][rows], batch["target_lengths"][rows]
            part = {
                "mels": batch["mels"][rows, : int(lengths.max())],
                "lengths": lengths,
                "targets": batch["targets"][ends[rows.start] : ends[rows.stop]],
                "target_lengths": characters,
            }
            found.append((part, share(characters, batch["target_lengths"])))
        return found

    def transcribe(self, recordings: list[Recording]) -> list[str]:
        """Best-path transcripts of recordings, a few at a time."""
        device = next(self.encoder.parameters()).device
        texts: list[str] = []
        for i in range(0, len(recordings), 32):
            mels, lengths = collate_mels([r.mel for r in recordings[i : i + 32]])
            states, lengths = self.encoder(mels.to(device), lengths.to(device))
            texts += self.head.transcribe(states, lengths)
        return texts

    def evaluate(self) -> dict[str, float]:
        """Character error rate of each speaker's recordings, and of all."""
        heard = self.transcribe(self.valid)
        pairs = [(r.speaker, normalise(r.text), h) for r, h in zip(self.valid, heard, strict=True)]
        scores = {} if self.impossible is None else {"impossible_targets": float(self.impossible)}
        scores |= {"cer": character_error_rate([p[1] for p in pairs], [p[2] for p in pairs])}
        for speaker in sorted({p[0] for p in pairs}):
            mine = [p for p in pairs if p[0] == speaker]
            scores[f"cer_{label(speaker)}"] = character_error_rate([p[1] for p in mine], [p[2] for p in mine])
        return scores

    def samples(self, step: int, folder: Path) -> None:
        """The first transcripts beside what was said, and the log-mels of some."""
        rows = self.valid[:8]
        lines = []
        for number, (row, heard) in enumerate(zip(rows, self.transcribe(rows), strict=True)):
            name = f"recording-{number}"
            lines.append(f"{name}\t{row.speaker}\t{normalise(row.text)}\t{heard}\n")
            if number < DRAWN:
                save_mel(row.mel, folder / f"{name}.png")
        (folder / "transcripts.tsv").write_text("recording\tspeaker\tsaid\theard\n" + "".join(lines), encoding="utf-8")


def hidden(size: int, widest: int, rng: torch.Generator) -> tuple[int, int]:
    """A random stretch to hide: its start and width."""
    width = int(torch.randint(min(widest, size - 1) + 1, (), generator=rng)) if size > 1 else 0
    return int(torch.randint(size - width + 1, (), generator=rng)), width


def label(speaker: str) -> str:
    """A speaker as part of a metric's name: ``espeak:en+m3`` as ``espeak-en-m3``."""
    return "".join(c if c.isalnum() else "-" for c in speaker)
