"""Work for the tests of shards by several workers; a module of its own, which starts quickly in a new process."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from muomni.data.shard_parallel import Bad, Made


def work(task: tuple[int, int], told: str = "") -> Iterator[Made | Bad]:
    """Samples of growing size; every 13th is bad. One line in the file `told` for each call."""
    if told:
        with Path(told).open("a") as file:
            file.write(f"{task[0]}\n")
    for number in range(*task):
        if number % 13 == 5:
            yield Bad(f"item {number}", "broken")
            continue
        yield Made(f"s{number:03d}", {"npy": np.arange(number * 7), "json": {"n": number}}, number)


def killed_at(task: tuple[int, int], told: str, fatal: int) -> Iterator[Made | Bad]:
    """As `work`, but the process is killed in the middle of one task."""
    for item in work(task, told):
        if isinstance(item, Made) and item.note == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        yield item
