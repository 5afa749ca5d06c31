"""Log-mels of the speech corpus in shards, so that no training computes them again."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from muomni.data.shards import SPLITS, ShardWriter, write_index
from muomni.data.utterances import STAGE, read_recording, read_utterances
from muomni.errors import UserError
from muomni.mel import MelConfig, log_mel
from muomni.sound import load_audio

PER_SHARD = 1000


def mel_of(recording: bytes, cfg: MelConfig) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Log-mel [T, n_mels] of an encoded recording; half precision is within 0.4 % of a magnitude."""
    wave = torch.from_numpy(load_audio(recording, cfg.sample_rate))
    return log_mel(wave, cfg).numpy().astype(np.float16)


def write_mel_shards(corpus: str | Path, cfg: MelConfig, folder: str | Path) -> dict[str, Any]:
    """Write ``<split>-000000.tar`` and on, and ``index.json``.

    A sample is ``<id>.npy``, float16 [T, n_mels] at 100 Hz, and ``<id>.json``: text, speaker, seconds,
    kind and key.

    Args:
        corpus: the folder that stage corpus-speech wrote.
        cfg: the front-end.
        folder: where the shards go.

    Returns:
        The index, with ``speakers``: samples and minutes by split and speaker.

    Raises:
        UserError: if the corpus is missing or damaged; it has set bad recordings aside, so none may be bad.
    """
    rows = read_utterances(corpus)
    shards: dict[str, list[dict[str, Any]]] = {}
    speakers: dict[str, dict[str, dict[str, Any]]] = {split: {} for split in SPLITS}
    with tqdm(total=len(rows), desc="mels", unit="recording") as bar:
        for split in SPLITS:
            minutes: dict[str, list[float]] = defaultdict(list)
            with ShardWriter(folder, split, PER_SHARD) as writer:
                for row in (row for row in rows if row["split"] == split):
                    try:
                        mel = mel_of(read_recording(corpus, row), cfg)
                    except UserError as error:
                        again = f"run `dvc repro --force {STAGE}`"
                        raise UserError(f"{corpus}/{row['file']}: {error}; {again}") from None
                    about = {name: row[name] for name in ("text", "speaker", "seconds", "kind", "key")}
                    writer.write(row["id"], {"npy": mel, "json": about})
                    minutes[row["speaker"]].append(row["seconds"] / 60)
                    bar.update()
            shards[split] = writer.shards
            speakers[split] = {
                speaker: {"samples": len(some), "minutes": round(sum(some), 2)}
                for speaker, some in sorted(minutes.items())
            }
    return write_index(folder, shards, [], speakers=speakers)
