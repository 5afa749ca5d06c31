"""Training pictures of image shards in batches: kept in memory, or read when they are needed.

Which pictures make which batch depends on nothing but the seed and the batch's number.
"""

from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muomni.data.pictures import Picture, as_picture, load_pictures
from muomni.data.shard_files import ShardFiles
from muomni.data.shard_stream import ShardStream
from muomni.data.shards import understood


def first_pictures(shards: str | Path, split: str, number: int, **files: Any) -> list[Picture]:
    """The first pictures of a split in the order they were written, from a folder or an address.

    Raises:
        UserError: if the shards are missing, damaged or empty.
    """
    opened = ShardFiles(shards, split, keep=1, **files)
    try:
        return [as_picture(shards, sample) for sample in islice(opened.samples(), number)]
    finally:
        opened.close()


class KeptPictures:
    """Batches of training pictures that are in memory, each picture once an epoch.

    Args:
        shards: folder of image shards.
        batch_size: pictures in a batch.
        seed: of the order.

    Raises:
        UserError: if the shards are missing, damaged or empty.
    """

    def __init__(self, shards: str | Path, batch_size: int, seed: int) -> None:
        self.size, self.seed = batch_size, seed
        self.pictures = load_pictures(shards, "train")
        self._order = (-1, torch.zeros(0, dtype=torch.int64))

    def order(self, epoch: int) -> Tensor:
        """The pictures of an epoch in random order."""
        if self._order[0] != epoch:
            rng = torch.Generator().manual_seed((self.seed << 20) + epoch)
            self._order = (epoch, torch.randperm(len(self.pictures), generator=rng))
        return self._order[1]

    def at(self, number: int) -> list[Picture]:
        """Pictures of the batch with this number, counted over all epochs, which follow each other without a gap."""
        total, first = len(self.pictures), number * self.size
        return [self.pictures[int(self.order(i // total)[i % total])] for i in range(first, first + self.size)]

    def words(self) -> tuple[list[str], list[str]]:
        """All names of things and colours of backgrounds, sorted."""
        names = sorted({o["name"] for p in self.pictures for o in p.objects})
        return names, sorted({p.background for p in self.pictures if p.background})

    def captions(self) -> set[str]:
        """All captions: what is known of texts before the training begins."""
        return {p.caption for p in self.pictures}


class PictureStream:
    """Batches of training pictures that are read as they are needed, each picture once an epoch.

    Args:
        shards: image shards: a folder or an address.
        batch_size: pictures in a batch.
        seed: of the order.
        files: further arguments of `muomni.data.shard_files.ShardFiles`.

    Raises:
        UserError: if the shards are missing or damaged.
    """

    def __init__(self, shards: str | Path, batch_size: int, seed: int, **files: Any) -> None:
        self.shards, self.size = shards, batch_size
        self.stream = ShardStream(shards, "train", seed, **files)

    def at(self, number: int) -> list[Picture]:
        """Pictures of the batch with this number, counted over all epochs, which follow each other without a gap.

        Raises:
            UserError: if a shard is missing or damaged.
        """
        total, first = len(self.stream), number * self.size
        places = (divmod(i, total) for i in range(first, first + self.size))
        return [as_picture(self.shards, self.stream.sample(epoch, place)) for epoch, place in places]

    def words(self) -> tuple[list[str], list[str]]:
        """All names of things and colours of backgrounds, sorted. Reads every description, and no picture.

        Raises:
            UserError: if a shard is missing or damaged.
        """
        names, backgrounds = set[str](), set[str]()
        for sample in self.stream.files.samples(only=("json",)):
            with understood(self.shards, sample):
                about = sample["json"]
                names |= {thing["name"] for thing in about["objects"]}
                backgrounds |= {about["background"]} if about.get("background") else set()
        return sorted(names), sorted(backgrounds)

    def captions(self) -> set[str]:
        """No captions: there may be more than memory holds. What a batch says is found out with the batch."""
        return set()
