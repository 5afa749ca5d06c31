"""Composes the pictures of a split from the corpus's drawings, each by its number, in any process.

Kept apart from the shards' reading and writing, so that a process that only composes need not load all that.
"""

import io
import random
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from muomni.data.concepts import Concept
from muomni.data.files import read_jsonl
from muomni.data.image_corpus import CONCEPTS, ImagesConfig, corpus_concepts
from muomni.data.scenes import Combinations, Composer, Drawing, combinations_of
from muomni.errors import UserError

Sample = tuple[str, bytes, dict[str, Any]]  # key, PNG, description


def load_drawings(corpus: str | Path, split: str) -> dict[str, list[Drawing]]:
    """The drawings that a split may show, by name.

    Raises:
        UserError: if one is missing or damaged.
    """
    found: dict[str, list[Drawing]] = defaultdict(list)
    for row in read_jsonl(Path(corpus) / CONCEPTS, "corpus-images"):
        if row["split"] not in (None, split):
            continue
        path = Path(corpus) / row["file"]
        try:
            with Image.open(path) as image:
                found[row["name"]].append(Drawing(image.convert("RGBA")))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); run `dvc repro --force corpus-images`") from None
    return dict(found)


def load_names(corpus: str | Path, split: str) -> set[str]:
    """The names that a split has pictures of."""
    rows = read_jsonl(Path(corpus) / CONCEPTS, "corpus-images")
    return {row["name"] for row in rows if row["split"] in (None, split)}


class SplitComposer:
    """Composes any picture of one split by its number, always the same one.

    Args:
        corpus: the folder that stage corpus-images wrote.
        config: section ``images``.
        seed: the project's seed.
        split: train, valid or test.
    """

    def __init__(self, corpus: str, config: ImagesConfig, seed: int, split: str) -> None:
        self.seed, self.split = seed, split
        drawings = load_drawings(corpus, split)
        concepts = corpus_concepts(corpus)
        # A name of one's own may have no picture in a held-out split.
        self.concepts: list[Concept] = [concept for concept in concepts if concept.name in drawings]
        self.singles, self.scenes = self.counts(config, split, len(self.concepts))
        self.allowed: Combinations | None = combinations_of(concepts, split, seed) if self.scenes else None
        self.composer = Composer(drawings, config.size_px)
        # Singles and scenes are mixed, so that every shard has some of both.
        self.order = list(range(self.singles + self.scenes))
        random.Random(f"{seed}:order:{split}").shuffle(self.order)

    @staticmethod
    def counts(config: ImagesConfig, split: str, names: int) -> tuple[int, int]:
        """How many pictures of one drawing and how many scenes the split has."""
        return {
            "train": (config.singles_per_name * names, config.scenes),
            "valid": (config.valid_singles, config.valid_scenes),
            "test": (config.test_singles, config.test_scenes),
        }[split]

    def compose(self, number: int) -> Sample:
        """The picture of a number, with its key and description."""
        rng = random.Random(f"{self.seed}:{self.split}:{number}")
        place = self.order[number]
        if place < self.singles:
            picture, described = self.composer.single(self.concepts[place % len(self.concepts)], rng)
        else:
            assert self.allowed is not None
            picture, described = self.composer.scene(self.allowed, rng)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=1)  # size hardly differs, and it is the quickest
        return f"{self.split}-{number:06d}", buffer.getvalue(), described


@lru_cache(maxsize=3)
def _composer(corpus: str, sha256: str, config: ImagesConfig, seed: int, split: str) -> SplitComposer:
    """A process keeps what it has loaded; the corpus's hash tells one corpus from a later one in its place."""
    return SplitComposer(corpus, config, seed, split)


def compose_task(task: tuple[str, int, int], corpus: str, sha256: str, config: ImagesConfig, seed: int) -> list[Sample]:
    """Compose pictures ``first`` to ``last - 1`` of a split.

    Args:
        task: split, first, last.
        corpus: the folder that stage corpus-images wrote.
        sha256: its manifest's hash.
        config: section ``images``.
        seed: the project's seed.
    """
    split, first, last = task
    composer = _composer(corpus, sha256, config, seed, split)
    return [composer.compose(number) for number in range(first, last)]
