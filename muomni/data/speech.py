"""Recordings of the mel shards in memory, for the stages that hear and speak."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muomni.data.batches import pad
from muomni.data.shards import read_shards, understood


@dataclass
class Recording:
    """One recording: natural-log mel ``[T, M]`` float16 at 100 Hz, what is said, and by whom."""

    mel: Tensor
    text: str
    speaker: str
    key: str
    kind: str


def load_recordings(folder: str | Path, split: str, speakers: Container[str] | None = None) -> list[Recording]:
    """Read a split of the mel shards, of all speakers or of some.

    Raises:
        UserError: if the shards are missing, damaged or empty.
    """
    found = (as_recording(folder, sample, speakers) for sample in read_shards(Path(folder), split))
    return [recording for recording in found if recording is not None]


def as_recording(
    folder: str | Path, sample: dict[str, Any], speakers: Container[str] | None = None
) -> Recording | None:
    """A sample of the mel shards as a recording; None for other speakers than those wanted.

    Raises:
        UserError: if it is no such sample, or its log-mel holds NaN or infinity.
    """
    with understood(folder, sample):
        about = sample["json"]
        if speakers is not None and about["speaker"] not in speakers:
            return None
        mel = torch.from_numpy(sample["npy"])
        if mel.ndim != 2 or not mel.is_floating_point():
            raise ValueError(f"no log-mel: {list(mel.shape)}")
        if not bool(mel.isfinite().all()):  # each step that meets it would be skipped, without a word why
            raise ValueError("the log-mel holds NaN or infinity")
        return Recording(mel, about["text"], about["speaker"], about["key"], about.get("kind", ""))


def collate_mels(mels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Log-mels ``[T, M]`` to a padded batch ``[B, T, M]`` float32 and lengths ``[B]``."""
    return pad([mel.float() for mel in mels]), torch.tensor([len(mel) for mel in mels])
