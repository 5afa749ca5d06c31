"""Writes the pictures that the model looks at, composed of the corpus's drawings, into shards."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from muomni.data.composing import compose_task, count_pictures, load_captioned, single_names
from muomni.data.files import read_json
from muomni.data.image_corpus import ImagesConfig
from muomni.data.shard_format import SPLITS
from muomni.data.shard_parallel import Made, runs_of, write_in_parallel
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
        workers: processes that compose; by default as many as there are processors.

    Returns:
        The index, with ``kinds``: pictures by split and layout.

    Raises:
        UserError: if the corpus is missing or damaged, or too small for a split.
    """
    workers = workers or os.cpu_count() or 1
    manifest = read_json(Path(corpus) / "manifest.json", "corpus-images")
    args = (str(Path(corpus).absolute()), manifest["sha256"], config, seed)
    tasks: dict[str, list[tuple[str, int, int]]] = {}
    for split in SPLITS:
        if not (single_names(corpus, config, split) or load_captioned(corpus, config, split)):
            raise UserError(f"{corpus}: no picture for the {split} split; give a name three pictures or more")
        total = count_pictures(corpus, config, split)
        tasks[split] = [(split, *run) for run in runs_of(total, PER_TASK)]
    found = write_in_parallel(
        folder, tasks, _pictures, *args, per_shard=config.per_shard, workers=workers, needs=[corpus]
    )
    shards = {split: written.shards for split, written in found.items()}
    kinds = {split: dict(sorted(Counter(written.notes).items())) for split, written in found.items()}
    # Imported late: a process that only composes need not load what reads shards.
    from muomni.data.shards import write_index

    return write_index(folder, shards, [], kinds=kinds, corpus=manifest["sha256"])


def _pictures(task: tuple[str, int, int], corpus: str, sha256: str, config: ImagesConfig, seed: int) -> Iterator[Made]:
    """Samples of a run of pictures, each noted by its layout."""
    for key, png, described in compose_task(task, corpus, sha256, config, seed):
        yield Made(key, {"png": png, "json": described}, described["layout"])
