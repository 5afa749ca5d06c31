"""Batches for the loop: each made from a random generator of its own, one ahead of the computation."""

import hashlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from muomni.errors import UserError


def micro_seed(seed: int, step: int, micro: int) -> int:
    """A seed of 63 bits for one micro-step."""
    digest = hashlib.blake2b(f"{seed}/{step}/{micro}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def to_device(batch: Any, device: torch.device) -> Any:
    """Move every tensor of nested dicts, lists and tuples; anything else stays as it is."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):  # NamedTuple
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


class Feed:
    """Hands out batches in order and makes the next one in a second thread meanwhile.

    Args:
        make: the task's ``batch(step, micro, rng)``.
        seed: of the training.
        order: (step, micro-step) of each batch.

    Attributes:
        waited: seconds spent waiting for batches, reset by the caller.
    """

    def __init__(
        self, make: Callable[[int, int, torch.Generator], Any], seed: int, order: Iterable[tuple[int, int]]
    ) -> None:
        self.make, self.seed, self.order, self.waited = make, seed, iter(order), 0.0
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self.ahead = self.submit()

    def submit(self) -> Future[Any] | None:
        """Start making the next batch, if there is one."""
        place = next(self.order, None)
        if place is None:
            return None
        rng = torch.Generator().manual_seed(micro_seed(self.seed, *place))
        return self.pool.submit(self.make, *place, rng)

    def next(self) -> Any:
        """The next batch.

        Raises:
            UserError: if the task has no data.
        """
        assert self.ahead is not None, "asked for more batches than there are steps"
        began = time.perf_counter()
        batch = self.ahead.result()
        self.waited += time.perf_counter() - began
        if batch is None:
            raise UserError("the training data is empty; check the data parameters and run `dvc repro`")
        self.ahead = self.submit()
        return batch

    def close(self) -> None:
        """End the thread."""
        self.pool.shutdown(wait=True, cancel_futures=True)
