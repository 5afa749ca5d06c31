"""Recordings of mel shards in batches, read when they are needed: for more data than memory holds.

Which recordings make which batch depends on nothing but the seed and the batch's number, as with recordings in memory.
So a training that goes on after an interruption, or in several processes, needs no state of the data.
"""

import random
from collections.abc import Callable, Container
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from muomni.data.batches import in_batches
from muomni.data.shard_files import ShardFiles, is_address, split_bytes
from muomni.data.shard_stream import ShardStream
from muomni.data.speech import Recording, as_recording
from muomni.errors import UserError

POOL = 32  # batches that are sorted by length together


def too_large(shards: str | Path, over_mb: float) -> bool:
    """Whether the training split is to be streamed: it lies at an address, or has more than so many megabytes."""
    return is_address(shards) or split_bytes(shards, "train") > over_mb * 1e6


def first_recordings(
    shards: str | Path, split: str, number: int, speakers: Container[str] | None = None, **files: Any
) -> list[Recording]:
    """The first recordings of a split in the order they were written, from a folder or an address; of some speakers.

    Raises:
        UserError: if the shards are missing, damaged or empty.
    """
    opened = ShardFiles(shards, split, keep=1, **files)
    try:
        found = (as_recording(shards, sample, speakers) for sample in opened.samples())
        return list(islice((recording for recording in found if recording is not None), number))
    finally:
        opened.close()


class RecordingStream:
    """Batches of training recordings, of similar length if wanted, each recording once an epoch.

    Args:
        shards: mel shards: a folder or an address.
        batch_size: recordings in a batch.
        seed: of the order.
        keep: which recordings can be learned from; others are left out of their batch.
        speakers: whose recordings; None: everybody's.
        by_length: whether those of a batch have similar lengths.
        files: further arguments of `muomni.data.shard_files.ShardFiles`.

    Raises:
        UserError: if the shards are missing or damaged.
    """

    def __init__(
        self,
        shards: str | Path,
        batch_size: int,
        seed: int,
        keep: Callable[[Recording], bool],
        speakers: Container[str] | None = None,
        by_length: bool = True,
        **files: Any,
    ) -> None:
        self.by_length = by_length
        self.shards, self.size, self.seed, self.keep, self.speakers = shards, batch_size, seed, keep, speakers
        self.stream = ShardStream(shards, "train", seed, **files)
        self.per_epoch = -(-len(self.stream) // batch_size)
        self._pool = lru_cache(maxsize=2)(self._make_pool)

    def first(self, number: int) -> list[Recording]:
        """At most so many recordings from the beginning of the first epoch, for figures about the data.

        Raises:
            UserError: if there is none.
        """
        places = range(min(number, len(self.stream)))
        found = [recording for place in places if (recording := self._recording(0, place)) is not None]
        if not found:
            raise UserError(f"{self.shards}: none of the first {len(places)} recordings can be learned from")
        return found

    def at(self, number: int) -> list[Recording]:
        """Recordings of the batch with this number, counted over all epochs; one at least.

        A batch of which nothing is left gives its place to the next one that has something.

        Raises:
            UserError: if a shard is missing or damaged, or none of an epoch's recordings can be learned from.
        """
        for later in range(self.per_epoch):
            epoch, batch = divmod(number + later, self.per_epoch)
            places = self._pool(epoch, batch // POOL)[batch % POOL]
            found = [recording for place in places if (recording := self._recording(epoch, place)) is not None]
            if found:
                return found
        raise UserError(f"{self.shards}: none of {len(self.stream)} recordings can be learned from")

    def _make_pool(self, epoch: int, pool: int) -> list[list[int]]:
        """Places of some batches: those that follow each other in the epoch's order, sorted by size."""
        first = pool * POOL * self.size
        places = range(first, min(first + POOL * self.size, len(self.stream)))
        if not self.by_length:
            return [list(places[at : at + self.size]) for at in range(0, len(places), self.size)]
        sizes = [self.stream.bytes_of(epoch, place) for place in places]
        rng = random.Random(f"{self.seed}/{epoch}/{pool}")
        return [[first + i for i in some] for some in in_batches(sizes, self.size, rng)]

    def _recording(self, epoch: int, place: int) -> Recording | None:
        recording = as_recording(self.shards, self.stream.sample(epoch, place), self.speakers)
        return recording if recording is not None and self.keep(recording) else None
