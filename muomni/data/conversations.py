"""Conversations that teach the whole model, in shards; `muomni.data.tasks` says how they are composed."""

import random
from pathlib import Path
from typing import Any

from pydantic import Field
from tqdm import tqdm

from muomni.config import Section
from muomni.data.known import read_concepts
from muomni.data.shards import SPLITS, ShardWriter, read_shards, write_index
from muomni.data.tasks import TASKS, SplitConversations
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


class ConversationsConfig(Section):
    """Section ``conversations``."""

    train: TaskCounts
    valid: TaskCounts
    test: TaskCounts
    turns: int = Field(ge=1, le=8, description="typed questions about one picture in a training conversation, at most")
    per_shard: int = Field(ge=1, description="conversations in a tar")


def write_conversations(
    cfg: ConversationsConfig,
    seed: int,
    images: str | Path,
    speech: str | Path,
    concepts: str | Path,
    folder: str | Path,
) -> dict[str, Any]:
    """Write ``<split>-000000.tar`` and on, and ``index.json``.

    Args:
        cfg: the section.
        seed: the project's seed.
        images: the image shards.
        speech: the speech corpus.
        concepts: ``concepts.jsonl`` of the picture corpus.
        folder: where the shards go.

    Returns:
        The index, with ``tasks``: conversations by split and task.

    Raises:
        UserError: if something is missing or damaged, or a task that is asked for has no material.
    """
    utterances, known = read_utterances(speech), read_concepts(concepts)
    shards: dict[str, list[dict[str, Any]]] = {}
    tasks: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        wanted = getattr(cfg, split).model_dump()
        composer = SplitConversations(split, seed, list(read_shards(images, split)), utterances, known, cfg.turns)
        made = [item for task in TASKS for item in composer.make(task, wanted[task])]
        tasks[split] = {task: sum(item.task == task for item in made) for task in TASKS}
        random.Random(f"{seed}:order:{split}").shuffle(made)
        with ShardWriter(folder, split, cfg.per_shard) as writer:
            for number, item in enumerate(tqdm(made, desc=f"conversations {split}")):
                members = {
                    name: value if isinstance(value, bytes) else read_recording(speech, value)
                    for name, value in item.members.items()
                }
                writer.write(f"{split}-{number:06d}-{item.task}", {"json": item.about(), **members})
        shards[split] = writer.shards
    return write_index(folder, shards, [], tasks=tasks)
