"""Work shared among processes, its results in order whatever their number."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import repeat
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

from muomni.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")


def _end_with_parent() -> None:
    """Have a worker end when its parent was killed, rather than wait for work for ever."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_processes(work: Callable[..., Result], tasks: Sequence[Task], workers: int, *args: Any) -> Iterator[Result]:
    """Yield ``work(task, *args)`` for each task, in the order of the tasks.

    Args:
        work: a function at the top of a module.
        tasks: what can be pickled.
        workers: processes; 1 works in this one.
        args: further arguments, the same for every task.

    Raises:
        UserError: if a worker was killed, most likely for want of memory, or as ``work`` raises it.
    """
    if workers == 1 or len(tasks) < 2:
        for task in tasks:
            yield work(task, *args)
        return
    # spawn: a forked child of a process that has threads (torch, tqdm) may hang.
    context = get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), context, initializer=_end_with_parent) as pool:
        try:
            yield from pool.map(work, tasks, *(repeat(value) for value in args))
        except BrokenProcessPool:
            raise UserError("a worker process was killed; set fewer workers, or free some memory") from None
