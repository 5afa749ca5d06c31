"""Which samples make which batch: a pure function of the seed and the step, so that a resumed training agrees."""

import random
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


class Buckets:
    """Batches of samples of similar length, each sample once an epoch.

    Samples are ordered by length with some jitter, cut into batches, and the batches shuffled; so little of a batch is
    padding, and the company that a sample keeps changes from epoch to epoch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, jitter: float = 0.1) -> None:
        self.lengths, self.size, self.seed, self.jitter = list(lengths), batch_size, seed, jitter
        self.per_epoch = (len(self.lengths) + batch_size - 1) // batch_size
        self._epoch = lru_cache(maxsize=2)(self.epoch)

    def epoch(self, number: int) -> list[list[int]]:
        """All batches of one epoch, as indices of samples."""
        rng = random.Random(f"{self.seed}/{number}")
        order = sorted(range(len(self.lengths)), key=lambda i: self.lengths[i] * (1 + self.jitter * rng.random()))
        batches = [order[i : i + self.size] for i in range(0, len(order), self.size)]
        rng.shuffle(batches)
        return batches

    def at(self, index: int) -> list[int]:
        """Indices of the samples of the batch with this number, counted over all epochs."""
        return self._epoch(index // self.per_epoch)[index % self.per_epoch]


def pad(rows: Sequence[Tensor], value: float = 0) -> Tensor:
    """Stack tensors of different first dimension, filled up on the right: ``[T, ...]`` each to ``[B, max T, ...]``."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def padding_share(lengths: Tensor) -> float:
    """Share of a padded batch that is padding, from its ``[B]`` lengths."""
    return 1 - float(lengths.sum()) / (len(lengths) * int(lengths.max()))
