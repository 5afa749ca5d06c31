"""Log-mels of the speech corpus in shards, so that no training computes them again."""

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from muomni.data.processes import executor
from muomni.data.shards import SPLITS, ShardWriter, write_index
from muomni.data.utterances import STAGE, UTTERANCES, read_recording, read_utterances
from muomni.errors import UserError
from muomni.mel import MelConfig, log_mel
from muomni.sound import load_audio

PER_SHARD = 1000
PER_TASK = 32  # recordings that a process reads at a time

Mel = np.ndarray[Any, np.dtype[np.float16]]


def mel_of(recording: bytes, cfg: MelConfig) -> Mel:
    """Log-mel [T, n_mels] of an encoded recording; half precision is within 0.4 % of a magnitude."""
    wave = torch.from_numpy(load_audio(recording, cfg.sample_rate))
    return log_mel(wave, cfg).numpy().astype(np.float16)


def mel_task(rows: list[dict[str, Any]], corpus: str, cfg: MelConfig) -> list[Mel]:
    """Log-mels of some utterances.

    Args:
        rows: of ``utterances.jsonl``.
        corpus: the folder that stage corpus-speech wrote.
        cfg: the front-end.

    Raises:
        UserError: if a recording is missing or damaged.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the processes are as many as the processors, and sums depend on the number of threads
    try:
        found = []
        for row in rows:
            try:
                found.append(mel_of(read_recording(corpus, row), cfg))
            except UserError as error:
                again = f"run `dvc repro --force {STAGE}`"
                raise UserError(f"{corpus}/{row['file']}: {error}; {again}") from None
        return found
    finally:
        torch.set_num_threads(threads)


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
        workers: processes; by default as many as there are processors. A Dask cluster has its own.

    Returns:
        The index, with ``speakers``: samples and minutes by split and speaker.

    Raises:
        UserError: if the corpus is missing or damaged; it has set bad recordings aside, so none may be bad.
    """
    rows = read_utterances(corpus)
    shards: dict[str, list[dict[str, Any]]] = {}
    speakers: dict[str, dict[str, dict[str, Any]]] = {split: {} for split in SPLITS}
    where, probe = str(Path(corpus).absolute()), Path(corpus) / UTTERANCES
    with executor(workers or os.cpu_count() or 1) as pool, tqdm(total=len(rows), desc="mels", unit="recording") as bar:
        for split in SPLITS:
            minutes: dict[str, list[float]] = defaultdict(list)
            some = [row for row in rows if row["split"] == split]
            tasks = [some[at : at + PER_TASK] for at in range(0, len(some), PER_TASK)]
            with ShardWriter(folder, split, PER_SHARD) as writer:
                for task, mels in zip(tasks, pool.map(mel_task, tasks, where, cfg, needs=[probe]), strict=True):
                    for row, mel in zip(task, mels, strict=True):
                        about = {name: row[name] for name in ("text", "speaker", "seconds", "kind", "key")}
                        writer.write(row["id"], {"npy": mel, "json": about})
                        minutes[row["speaker"]].append(row["seconds"] / 60)
                    bar.update(len(task))
            shards[split] = writer.shards
            speakers[split] = {
                speaker: {"samples": len(some), "minutes": round(sum(some), 2)}
                for speaker, some in sorted(minutes.items())
            }
    return write_index(folder, shards, [], speakers=speakers)
