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
        return in_batches(self.lengths, self.size, random.Random(f"{self.seed}/{number}"), self.jitter)

    def at(self, index: int) -> list[int]:
        """Indices of the samples of the batch with this number, counted over all epochs."""
        return self._epoch(index // self.per_epoch)[index % self.per_epoch]


def in_batches(lengths: Sequence[int], size: int, rng: random.Random, jitter: float = 0.1) -> list[list[int]]:
    """Indices of samples in batches of similar length, the batches in random order."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i] * (1 + jitter * rng.random()))
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(batches)
    return batches


def pad(rows: Sequence[Tensor], value: float = 0) -> Tensor:
    """Stack tensors of different first dimension, filled up on the right: ``[T, ...]`` each to ``[B, max T, ...]``."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def padding_share(lengths: Tensor) -> float:
    """Share of a padded batch that is padding, from its ``[B]`` lengths."""
    return 1 - float(lengths.sum()) / (len(lengths) * int(lengths.max()))
