"""Log-mels of the speech corpus in shards, so that no training computes them again."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from muomni.data.shard_parallel import Made, runs_of, write_in_parallel
from muomni.data.shards import SPLITS, write_index
from muomni.data.utterances import STAGE, read_recording, read_utterances
from muomni.errors import UserError
from muomni.mel import MelConfig, log_mel
from muomni.sound import load_audio

PER_TASK = 50  # recordings that a process works on at a time
WORTH_A_WORKER = 1500  # recordings: for fewer the start of a process takes longer than it saves
PER_SHARD = 1000


def mel_of(recording: bytes, cfg: MelConfig) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Log-mel [T, n_mels] of an encoded recording; half precision is within 0.4 % of a magnitude."""
    wave = torch.from_numpy(load_audio(recording, cfg.sample_rate))
    return log_mel(wave, cfg).numpy().astype(np.float16)


def write_mel_shards(
    corpus: str | Path, cfg: MelConfig, folder: str | Path, workers: int | None = None
) -> dict[str, Any]:
    """Write ``<split>-000000.tar`` and on, and ``index.json``; the bytes do not depend on `workers`.

    A sample is ``<id>.npy``, float16 [T, n_mels] at 100 Hz, and ``<id>.json``: text, speaker, seconds,
    kind and key.

    Args:
        corpus: the folder that stage corpus-speech wrote.
        cfg: the front-end.
        folder: where the shards go.
        workers: processes; by default as many as there are processors and recordings for.

    Returns:
        The index, with ``speakers``: samples and minutes by split and speaker.

    Raises:
        UserError: if the corpus is missing or damaged; it has set bad recordings aside, so none may be bad.
    """
    rows = read_utterances(corpus)
    mine = {split: [row for row in rows if row["split"] == split] for split in SPLITS}
    tasks = {split: [some[first:end] for first, end in runs_of(len(some), PER_TASK)] for split, some in mine.items()}
    workers = workers or max(1, min(os.cpu_count() or 1, len(rows) // WORTH_A_WORKER))
    where = str(Path(corpus).absolute())
    found = write_in_parallel(folder, tasks, _mels, where, cfg, per_shard=PER_SHARD, workers=workers, needs=[corpus])
    speakers: dict[str, dict[str, dict[str, Any]]] = {}
    for split, some in mine.items():
        minutes: dict[str, list[float]] = defaultdict(list)
        for row in some:
            minutes[row["speaker"]].append(row["seconds"] / 60)
        speakers[split] = {
            speaker: {"samples": len(times), "minutes": round(sum(times), 2)}
            for speaker, times in sorted(minutes.items())
        }
    return write_index(folder, {split: found[split].shards for split in SPLITS}, [], speakers=speakers)


def _mels(rows: list[dict[str, Any]], corpus: str, cfg: MelConfig) -> Iterator[Made]:
    """Samples of some recordings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many processes as processors work, and sums may depend on the number of threads
    try:
        for row in rows:
            try:
                mel = mel_of(read_recording(corpus, row), cfg)
            except UserError as error:
                raise UserError(f"{corpus}/{row['file']}: {error}; run `dvc repro --force {STAGE}`") from None
            about = {name: row[name] for name in ("text", "speaker", "seconds", "kind", "key")}
            yield Made(row["id"], {"npy": mel, "json": about})
    finally:
        torch.set_num_threads(threads)
