"""Conversations of the conversation shards in memory, and batches of them."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muomni.data.grammar import QA, is_right
from muomni.data.pictures import decode_picture
from muomni.data.shards import read_shards, understood
from muomni.device import one_thread
from muomni.media import load_audio
from muomni.mel import MelConfig, log_mel


@dataclass
class Dialogue:
    """One conversation.

    Attributes:
        task: for example ``scene`` or ``dictation``.
        kind: of the question.
        messages: in the chat format; pictures and recordings are named by member.
        targets: the bare facts that a right answer has.
        media: for each member its hash, under which `Dialogues` keeps what it shows or says.
        key: of the sample.
    """

    task: str
    kind: str
    messages: list[dict[str, Any]]
    targets: list[str]
    media: dict[str, str] = field(default_factory=dict)
    key: str = ""

    @property
    def answer(self) -> str:
        """What the assistant says last."""
        return "".join(part["text"] for part in self.messages[-1]["content"])

    def is_right(self, answer: str) -> bool:
        """Whether an answer states the fact that was asked for; see `muomni.data.grammar.is_right`."""
        return is_right(QA(self.kind, "", self.answer, tuple(self.targets), ""), answer)


class Dialogues:
    """A split of the conversation shards. A picture or recording that several conversations share is kept once.

    Attributes:
        items: the conversations.
        pictures: ``[3, S, S]`` uint8 by hash.
        mels: log-mel ``[T, M]`` float32 by hash.

    Raises:
        UserError: if the shards are missing, damaged or empty.
    """

    def __init__(self, folder: str | Path, split: str, mel: MelConfig) -> None:
        self.items: list[Dialogue] = []
        self.pictures: dict[str, Tensor] = {}
        self.mels: dict[str, Tensor] = {}
        with one_thread():
            for sample in read_shards(Path(folder), split):
                with understood(folder, sample):
                    self.items.append(self.read(sample, mel))

    def read(self, sample: Mapping[str, Any], mel: MelConfig) -> Dialogue:
        """One conversation; its pictures and recordings go to the others."""
        about = sample["json"]
        dialogue = Dialogue(about["task"], about["kind"], about["messages"], about["targets"], key=sample["__key__"])
        asked = [p["member"] for m in about["messages"] if m["role"] == "user" for p in m["content"] if "member" in p]
        for name in asked:
            data = sample[name]
            digest = hashlib.blake2b(data, digest_size=16).hexdigest()
            dialogue.media[name] = digest
            if name.endswith(".png"):
                if digest not in self.pictures:
                    self.pictures[digest] = decode_picture(data)
            elif digest not in self.mels:
                self.mels[digest] = log_mel(torch.from_numpy(load_audio(data, mel.sample_rate)), mel)
        return dialogue


class Mixture:
    """Batches that mix tasks by weight, as a pure function of the seed and the batch's number.

    A pool of several batches' worth is drawn, each task's samples in a random order without repetition until all were
    seen, then cut into batches of similar length, so that little is padding.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        lengths: Sequence[int],
        weights: dict[str, float],
        batch_size: int,
        seed: int,
        pool: int = 16,
    ) -> None:
        self.members: dict[str, list[int]] = {}
        for index, task in enumerate(tasks):
            if weights.get(task, 0) > 0:
                self.members.setdefault(task, []).append(index)
        self.lengths, self.size, self.seed, self.pool = list(lengths), batch_size, seed, pool
        total = sum(weights[task] for task in self.members)
        # How many of each task a pool has; a rest goes to the largest, so that a pool is always full.
        count = batch_size * pool
        self.quota = {task: int(count * weights[task] / total) for task in self.members}
        largest = max(self.quota, key=lambda task: self.quota[task])
        self.quota[largest] += count - sum(self.quota.values())
        self._pool = lru_cache(maxsize=2)(self.draw)
        self._order = lru_cache(maxsize=64)(self.order)

    def order(self, task: str, epoch: int) -> list[int]:
        """A task's samples in the random order of one pass over them."""
        members = list(self.members[task])
        random.Random(f"{self.seed}/{task}/{epoch}").shuffle(members)
        return members

    def draw(self, number: int) -> list[list[int]]:
        """The batches of one pool."""
        chosen: list[int] = []
        for task, quota in self.quota.items():
            total = len(self.members[task])
            for place in range(number * quota, (number + 1) * quota):
                chosen.append(self._order(task, place // total)[place % total])
        rng = random.Random(f"{self.seed}/pool/{number}")
        rng.shuffle(chosen)
        chosen.sort(key=lambda index: self.lengths[index])
        batches = [chosen[i : i + self.size] for i in range(0, len(chosen), self.size)]
        rng.shuffle(batches)
        return batches

    def at(self, number: int) -> list[int]:
        """Indices of the samples of the batch with this number."""
        return self._pool(number // self.pool)[number % self.pool]
