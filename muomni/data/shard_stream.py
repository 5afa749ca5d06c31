"""Samples of shards in another order each epoch, dealt out to any number of readers.

The order of an epoch is a function of the seed, the epoch and the index: the shards are shuffled and taken a few at a
time, a window, and the samples of a window are shuffled together. Reader q of n gets the places q, q + n, q + 2n ...
of that order. So no reader has to know of another one, any place can be begun at, and readers that take turns give the
order that a single one gives, however many they are.
"""

import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from muomni.data.shard_files import ShardFiles
from muomni.errors import UserError

WINDOW = 4  # shards


@dataclass(frozen=True)
class Reader:
    """One of the readers of an epoch: worker `worker` of `workers` in process `rank` of `ranks`."""

    rank: int = 0
    ranks: int = 1
    worker: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be."""
        if not (0 <= self.rank < self.ranks and 0 <= self.worker < self.workers):
            raise ValueError(f"no such reader: {self}")

    @property
    def number(self) -> int:
        """Its number among all readers. The workers of a process deal out that process's places in turn."""
        return self.rank + self.ranks * self.worker

    @property
    def readers(self) -> int:
        """How many there are."""
        return self.ranks * self.workers


class EpochOrder:
    """The order of the samples in one epoch.

    Args:
        counts: samples of each shard.
        seed: of the order.
        epoch: its number.
        window: how many shards are shuffled together.
    """

    def __init__(self, counts: Sequence[int], seed: int, epoch: int, window: int) -> None:
        self.counts, self.name = counts, f"{seed}/{epoch}"
        shards = list(range(len(counts)))
        random.Random(f"{self.name}/shards").shuffle(shards)
        self.windows = [shards[at : at + window] for at in range(0, len(shards), window)]
        sizes = (sum(counts[shard] for shard in some) for some in self.windows)
        self.starts = [0, *accumulate(sizes)]  # places; the last is the number of samples
        self._samples = lru_cache(maxsize=2)(self.samples)

    def samples(self, window: int) -> list[tuple[int, int]]:
        """Shard and number in the shard of each sample of a window."""
        found = [(shard, number) for shard in self.windows[window] for number in range(self.counts[shard])]
        random.Random(f"{self.name}/window/{window}").shuffle(found)
        return found

    def window_of(self, place: int) -> int:
        """Which window a place is in."""
        return bisect_right(self.starts, place) - 1

    def at(self, place: int) -> tuple[int, int]:
        """Shard and number in the shard of the sample at a place, 0 to the number of samples - 1."""
        window = self.window_of(place)
        return self._samples(window)[place - self.starts[window]]


class ShardStream:
    """Samples of a split by their place in the order of an epoch.

    Args:
        where: a folder of shards, or their address.
        split: train, valid or test.
        seed: of the order.
        window: shards that are shuffled together: they are open at the same time, and so are those of the window after.
        files: further arguments of `ShardFiles`: ``cache``, ``cache_bytes``, ``timeout``.

    Raises:
        UserError: if the index is missing or damaged, or the split is empty.
    """

    def __init__(self, where: str | Path, split: str, seed: int, window: int = WINDOW, **files: Any) -> None:
        if window < 1:
            raise ValueError(f"window: {window}")
        self.seed, self.window = seed, window
        self.files = ShardFiles(where, split, 2 * window, **files)
        self.counts = [int(entry["samples"]) for entry in self.files.entries]
        self.order = lru_cache(maxsize=2)(self._order)
        self._ahead: tuple[int, int] = (-1, -1)  # epoch and window whose successor is being opened

    def __len__(self) -> int:
        """Samples of an epoch."""
        return sum(self.counts)

    def _order(self, epoch: int) -> EpochOrder:
        return EpochOrder(self.counts, self.seed, epoch, self.window)

    def _find(self, epoch: int, place: int) -> tuple[int, int]:
        """Shard and number of a sample; the shards of the next window are opened meanwhile."""
        order = self.order(epoch)
        window = order.window_of(place)
        if self._ahead != (epoch, window):
            self._ahead = (epoch, window)
            for shard in (*order.windows[window], *(order.windows[window + 1 : window + 2] or [[]])[0]):
                self.files.prepare(shard)
        return order.at(place)

    def sample(self, epoch: int, place: int) -> dict[str, Any]:
        """The sample at a place of an epoch: ``__key__`` and the decoded members.

        Raises:
            UserError: if its shard is missing, changed or cut off, or cannot be fetched.
        """
        return self.files.read(*self._find(epoch, place))

    def bytes_of(self, epoch: int, place: int) -> int:
        """Bytes of the sample's members, without reading them."""
        shard, number = self._find(epoch, place)
        return self.files.get(shard).bytes_of(number)

    def start(self, epoch: int = 0) -> dict[str, Any]:
        """The state in which nothing of an epoch was read."""
        return {"seed": self.seed, "epoch": epoch, "taken": []}

    def read(self, state: Mapping[str, Any], reader: Reader = Reader()) -> "EpochReader":  # noqa: B008 (frozen)
        """A reader's samples of what a state leaves of an epoch.

        Raises:
            UserError: if the state is of another seed.
        """
        if state["seed"] != self.seed:
            raise UserError(f"{self.files.where}: the state is of seed {state['seed']}, the stream of {self.seed}")
        return EpochReader(self, state, reader)

    def close(self) -> None:
        """Close the files."""
        self.files.close()


class EpochReader:
    """Iterates over one reader's samples of one epoch; `state` says at any time how far it is.

    Attributes:
        places: places in the epoch's order that this reader gets.
        taken: how many of them it has given.
    """

    def __init__(self, stream: ShardStream, state: Mapping[str, Any], reader: Reader) -> None:
        self.stream, self.reader, self.taken = stream, reader, 0
        self.epoch, self.before = int(state["epoch"]), [list(layer) for layer in state["taken"]]
        places = remaining(len(stream), self.before) if self.before else range(len(stream))
        self.places: Sequence[int] = places[reader.number :: reader.readers]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Samples from where the reader is to the epoch's end."""
        while self.taken < len(self.places):
            sample = self.stream.sample(self.epoch, int(self.places[self.taken]))
            self.taken += 1  # before it is handed out: who asks for the state then has the sample
            yield sample

    def state(self) -> dict[str, Any]:
        """This reader's part of the state; `join_states` puts the parts of all readers together."""
        about = {"seed": self.stream.seed, "epoch": self.epoch, "before": self.before}
        return {**about, "reader": self.reader.number, "readers": self.reader.readers, "taken": self.taken}


def remaining(total: int, taken: Sequence[Sequence[int]]) -> Any:
    """Places of an epoch that no reader had, in order, as an array ``[N]`` int64.

    Args:
        total: samples of the epoch.
        taken: how many each reader had, of the first run, then of the run that went on after it, and so on: every
            run deals out what the one before left.
    """
    places = np.arange(total)
    for layer in taken:
        turns, reader = np.divmod(np.arange(len(places)), len(layer))
        places = places[turns >= np.array(layer)[reader]]
    return places


def join_states(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One state of all readers' parts: a small dict of JSON values, from which any number of readers can go on.

    Raises:
        ValueError: if parts are missing, or are of different runs.
    """
    parts = sorted(parts, key=lambda part: int(part["reader"]))
    first = parts[0]
    same = all(part[name] == first[name] for part in parts for name in ("seed", "epoch", "before", "readers"))
    if not same or [part["reader"] for part in parts] != list(range(first["readers"])):
        raise ValueError("the states are not those of all readers of one run")
    layers = [*(list(layer) for layer in first["before"]), [int(part["taken"]) for part in parts]]
    while len(layers) > 1 and len(layers[-2]) == len(layers[-1]) and len(set(layers[-2])) == 1:
        last = layers.pop()  # readers that stopped side by side and went on: as if they had not stopped
        layers[-1] = [before + more for before, more in zip(layers[-1], last, strict=True)]
    return {"seed": first["seed"], "epoch": first["epoch"], "taken": layers}
