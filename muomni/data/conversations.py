"""Conversations that teach the whole model, in shards; `muomni.data.tasks` says how they are composed."""

import random
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from tqdm import tqdm

from muomni.config import Section
from muomni.data.badsamples import BadSamples
from muomni.data.chat_format import TASK, Fitting, OwnConversation
from muomni.data.known import read_concepts
from muomni.data.mixtures import told
from muomni.data.own_conversations import read_conversations
from muomni.data.shards import SPLITS, ShardWriter, read_shards, write_index
from muomni.data.tasks import TASKS, Conversation, SplitConversations
from muomni.data.utterances import read_recording, read_utterances


class TaskCounts(Section):
    """How many conversations of each task a split has, at most."""

    name: int = Field(ge=0, description="a picture of one thing: what is it?")
    caption: int = Field(ge=0, description="describe a picture")
    single: int = Field(ge=0, description="questions about a picture of one thing: its kind, what is there")
    scene: int = Field(ge=0, description="questions about several things: places, counts, colours")
    world: int = Field(ge=0, description="questions without a picture: kinds, attributes, comparisons")
    dictation: int = Field(ge=0, description="a recording, written down")
    read_aloud: int = Field(ge=0, description="a sentence, spoken")
    spoken_scene: int = Field(ge=0, description="a picture and a spoken question, answered in text and speech")
    spoken_world: int = Field(ge=0, description="a spoken question, answered in text and speech")

    def asks_about_concepts(self) -> bool:
        """Whether there are questions that need facts; own pictures with captions alone have none."""
        return any((self.single, self.scene, self.world, self.spoken_scene, self.spoken_world))


class ConversationsConfig(Section):
    """Section ``conversations``."""

    source: Literal["generated", "jsonl", "mixture"] = Field(
        default="generated",
        description="beside the generated ones your own: JSON lines of a folder, or several sources",
    )
    path: str = Field(default="", description="address of the folder, or of the YAML file that lists sources")
    max_bad_fraction: float = Field(default=0.01, ge=0, le=1, description="a larger share of bad lines stops the stage")
    train: TaskCounts
    valid: TaskCounts
    test: TaskCounts
    turns: int = Field(ge=1, le=8, description="typed questions about one picture in a training conversation, at most")
    per_shard: int = Field(ge=1, description="conversations in a tar")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.source != "generated" and not self.path:
            raise ValueError(f"source {self.source} needs path")
        return self


def write_conversations(
    cfg: ConversationsConfig,
    seed: int,
    images: str | Path,
    speech: str | Path,
    concepts: str | Path,
    folder: str | Path,
    fitting: Fitting | None = None,
) -> dict[str, Any]:
    """Write ``<split>-000000.tar`` and on, and ``index.json``.

    Args:
        cfg: the section.
        seed: the project's seed.
        images: the image shards.
        speech: the speech corpus.
        concepts: ``concepts.jsonl`` of the picture corpus.
        folder: where the shards go.
        fitting: how pictures and recordings of one's own conversations are made; needed if there are any.

    Returns:
        The index, with ``tasks``: conversations by split and task; with conversations of one's own also ``origins``:
        what each of their sources gave.

    Raises:
        UserError: if something is missing or damaged, or a task that is asked for has no material.
    """
    utterances = read_utterances(speech)
    known = read_concepts(concepts) if any(getattr(cfg, s).asks_about_concepts() for s in SPLITS) else []
    own, bad, more = _own(cfg, seed, fitting)
    shards: dict[str, list[dict[str, Any]]] = {}
    tasks: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        wanted = getattr(cfg, split).model_dump()
        composer = SplitConversations(split, seed, list(read_shards(images, split)), utterances, known, cfg.turns)
        made: list[Conversation | OwnConversation] = []
        for task in TASKS:
            made += composer.make(task, wanted[task])
        tasks[split] = {task: sum(item.task == task for item in made) for task in TASKS}
        if mine := [item for item in own if item.split == split]:
            tasks[split][TASK] = len(mine)
            made += mine
        random.Random(f"{seed}:order:{split}").shuffle(made)
        with ShardWriter(folder, split, cfg.per_shard) as writer:
            for number, item in enumerate(tqdm(made, desc=f"conversations {split}")):
                members = {
                    name: value if isinstance(value, bytes) else read_recording(speech, value)
                    for name, value in item.members.items()
                }
                writer.write(f"{split}-{number:06d}-{item.task}", {"json": item.about(), **members})
        shards[split] = writer.shards
    return write_index(folder, shards, bad.items, tasks=tasks, **more)


def _own(
    cfg: ConversationsConfig, seed: int, fitting: Fitting | None
) -> tuple[list[OwnConversation], BadSamples, dict[str, Any]]:
    """Conversations of one's own, lines that are bad, and what the index tells of their sources."""
    bad = BadSamples(cfg.max_bad_fraction, "conversations.path")
    if cfg.source == "generated":
        return [], bad, {}
    if fitting is None:
        raise ValueError("conversations of one's own need a fitting")
    own, origins = read_conversations(cfg.source, cfg.path, fitting, seed, bad)
    bad.check(sum(origin.items for origin in origins) + len(bad))
    return own, bad, told(cfg.source, cfg.path, origins)
