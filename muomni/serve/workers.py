"""Threads for what takes long beside the model's own: decoding pictures and sound, encoding, making files of speech."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """A few threads, each with one core for PyTorch, so that they do not slow down the model's.

    Args:
        count: of threads; what else is to be done waits.
    """

    def __init__(self, count: int) -> None:
        self.pool = ThreadPoolExecutor(count, "worker", initializer=torch.set_num_threads, initargs=(1,))

    async def run(self, function: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        """Call a function in one of the threads. A caller that is cancelled does not wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, lambda: function(*args, **more))

    def close(self) -> None:
        """Forget what waits."""
        self.pool.shutdown(wait=False, cancel_futures=True)
