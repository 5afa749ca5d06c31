"""Writes the pictures that the model looks at, composed of the corpus's drawings, into shards."""

import os
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from muomni.data.composing import compose_task, count_pictures, load_captioned, single_names
from muomni.data.files import MANIFEST, read_json
from muomni.data.image_corpus import ImagesConfig
from muomni.data.processes import executor
from muomni.data.shards import SPLITS, ShardWriter, write_index
from muomni.errors import UserError

PER_TASK = 200  # pictures that a process composes at a time


def write_image_shards(
    config: ImagesConfig, seed: int, corpus: str | Path, folder: str | Path, workers: int | None = None
) -> dict[str, Any]:
    """Write ``<split>-000000.tar`` and on, and ``index.json``; the bytes do not depend on `workers`.

    Args:
        config: section ``images``.
        seed: the project's seed.
        corpus: the folder that stage corpus-images wrote.
        folder: where the shards go.
        workers: processes that compose; by default as many as there are processors. A Dask cluster has its own.

    Returns:
        The index, with ``kinds``: pictures by split and layout.

    Raises:
        UserError: if the corpus is missing or damaged, or too small for a split.
    """
    workers = workers or os.cpu_count() or 1
    manifest = read_json(Path(corpus) / MANIFEST, "corpus-images")
    args = (str(Path(corpus).absolute()), manifest["sha256"], config, seed)
    kinds: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    tasks = []
    for split in SPLITS:
        if not (single_names(corpus, config, split) or load_captioned(corpus, config, split)):
            raise UserError(f"{corpus}: no picture for the {split} split; give a name three pictures or more")
        total = count_pictures(corpus, config, split)
        tasks += [(split, at, min(at + PER_TASK, total)) for at in range(0, total, PER_TASK)]
    with executor(workers) as pool, ExitStack() as stack:
        writers = {s: stack.enter_context(ShardWriter(folder, s, config.per_shard)) for s in SPLITS}
        results = pool.map(compose_task, tasks, *args, needs=[Path(corpus) / MANIFEST])
        for (split, _, _), samples in zip(tasks, results, strict=True):
            for key, png, described in samples:
                writers[split].write(key, {"png": png, "json": described})
                kinds[split][described["layout"]] += 1
    shards = {split: writer.shards for split, writer in writers.items()}
    counted = {split: dict(sorted(count.items())) for split, count in kinds.items()}
    return write_index(folder, shards, [], kinds=counted, corpus=manifest["sha256"])
