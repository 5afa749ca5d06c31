"""Composes the pictures of a split from the corpus's drawings, each by its number, in any process.

Kept apart from the shards' reading and writing, so that a process that only composes need not load all that.
"""

import io
import random
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from muomni.data.concepts import Concept
from muomni.data.files import read_jsonl
from muomni.data.image_corpus import CAPTIONED, CONCEPTS, ImagesConfig, corpus_concepts
from muomni.data.scenes import Combinations, Composer, Drawing, combinations_of
from muomni.data.splits import TRAIN_ONLY
from muomni.errors import UserError

Sample = tuple[str, bytes, dict[str, Any]]  # key, PNG, description


def load_drawings(corpus: str | Path, split: str, known: dict[str, Drawing] | None = None) -> dict[str, list[Drawing]]:
    """The drawings that a split may show, by name; their files are read when they are first used.

    Args:
        corpus: the folder that stage corpus-images wrote.
        split: train, valid or test.
        known: drawings by file, of other splits too; takes those that are new. So a process has each but once.
    """
    found: dict[str, list[Drawing]] = defaultdict(list)
    known = {} if known is None else known
    for row in read_jsonl(Path(corpus) / CONCEPTS, "corpus-images"):
        if row["split"] in (None, split):
            file = row["file"]
            if file not in known:
                known[file] = Drawing(Path(corpus) / file, _style(row))
            found[row["name"]].append(known[file])
    return dict(found)


def _style(row: dict[str, Any]) -> dict[str, Any]:
    """What a description tells of a drawing that comes in several styles: which, and whether training never has it."""
    return {"style": row["style"], "unseen": row["split"] is not None} if "style" in row else {}


def single_names(corpus: str | Path, config: ImagesConfig, split: str) -> list[str]:
    """What each of a split's pictures of one drawing shows: its names in turn, in training as often as they weigh."""
    weights: dict[str, float] = {}
    for row in read_jsonl(Path(corpus) / CONCEPTS, "corpus-images"):
        if row["split"] in (None, split):
            weights[row["name"]] = max(weights.get(row["name"], 0.0), row.get("weight", 1.0))
    names = list(weights)
    if split != "train":
        number = config.valid_singles if split == "valid" else config.test_singles
        return [names[i % len(names)] for i in range(number)] if names else []
    rounds = {name: max(1, round(config.singles_per_name * weight)) for name, weight in weights.items()}
    return [name for number in range(max(rounds.values(), default=0)) for name in names if number < rounds[name]]


def load_captioned(corpus: str | Path, config: ImagesConfig, split: str) -> list[dict[str, Any]]:
    """A split's pictures with captions; in training each as often as its source weighs, else at most as many as asked.

    Raises:
        UserError: if their list is damaged.
    """
    path = Path(corpus) / CAPTIONED
    rows = [row for row in read_jsonl(path, "corpus-images") if row["split"] in (None, split)] if path.exists() else []
    if split == "train":
        return [row for row in rows for _ in range(row["times"])]
    return rows[: config.valid_singles if split == "valid" else config.test_singles]


def count_pictures(corpus: str | Path, config: ImagesConfig, split: str) -> int:
    """How many pictures a split has."""
    scenes = {"train": config.scenes, "valid": config.valid_scenes, "test": config.test_scenes}[split]
    return len(single_names(corpus, config, split)) + scenes + len(load_captioned(corpus, config, split))


class SplitComposer:
    """Composes any picture of one split by its number, always the same one.

    Args:
        corpus: the folder that stage corpus-images wrote.
        config: section ``images``.
        seed: the project's seed.
        split: train, valid or test.
        known: see `load_drawings`.
    """

    def __init__(
        self, corpus: str, config: ImagesConfig, seed: int, split: str, known: dict[str, Drawing] | None = None
    ) -> None:
        self.seed, self.split = seed, split
        drawings = load_drawings(corpus, split, known)
        concepts = corpus_concepts(corpus)
        by_name = {concept.name: concept for concept in concepts}
        # A name of one's own may have no picture in a held-out split.
        self.singles: list[Concept] = [by_name[name] for name in single_names(corpus, config, split)]
        self.captioned = load_captioned(corpus, config, split)
        total = count_pictures(corpus, config, split)
        self.allowed: Combinations | None = None
        if total > len(self.singles) + len(self.captioned):
            self.allowed = combinations_of(concepts, split, seed)
        self.corpus, self.composer = corpus, Composer(drawings, config.size_px)
        # Singles, pictures with captions and scenes are mixed, so that every shard has some of each.
        self.order = list(range(total))
        random.Random(f"{seed}:order:{split}").shuffle(self.order)

    def compose(self, number: int) -> Sample:
        """The picture of a number, with its key and description."""
        rng = random.Random(f"{self.seed}:{self.split}:{number}")
        place = self.order[number]
        if place < len(self.singles):
            picture, described = self.composer.single(self.singles[place], rng)
        elif self.allowed is not None and place < len(self.order) - len(self.captioned):
            picture, described = self.composer.scene(self.allowed, rng)
        else:
            return self.as_it_is(number, self.captioned[place - len(self.order)], rng)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=1)  # size hardly differs, and it is the quickest
        return f"{self.split}-{number:06d}", buffer.getvalue(), described

    def as_it_is(self, number: int, row: dict[str, Any], rng: random.Random) -> Sample:
        """A picture with captions, and its description: no objects are known, one of the captions is drawn.

        Raises:
            UserError: if the picture's file cannot be read.
        """
        captions = row["captions"]
        described: dict[str, Any] = {"kind": "captioned", "layout": "captioned", "background": None, "objects": []}
        described |= {"caption": rng.choice(captions), "captions": captions, "key": f"{TRAIN_ONLY}{row['id']}"}
        path = Path(self.corpus) / row["file"]
        try:
            return f"{self.split}-{number:06d}", path.read_bytes(), described
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}; run `dvc repro --force corpus-images`") from None


@lru_cache(maxsize=3)
def _composer(corpus: str, sha256: str, config: ImagesConfig, seed: int, split: str) -> SplitComposer:
    """A process keeps what it has loaded; the corpus's hash tells one corpus from a later one in its place."""
    return SplitComposer(corpus, config, seed, split, _known(corpus, sha256))


@lru_cache(maxsize=1)
def _known(corpus: str, sha256: str) -> dict[str, Drawing]:
    """The drawings of a corpus that a process has read."""
    return {}


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
