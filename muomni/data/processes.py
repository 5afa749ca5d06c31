"""Work shared among processes, its results in order wherever and by how many they were made.

An `Executor` maps a function over items: in this process, in several of this machine, or on a Dask cluster whose
address the environment variable ``MUOMNI_DASK`` holds. It is a variable and no parameter since it changes no output:
DVC compares parameters, and must not make data again because a cluster is there or not.
"""

import os
import signal
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from muomni.errors import UserError, one_line, shortened

ADDRESS = "MUOMNI_DASK"
KILLS = 3  # workers that an item has killed at least when it is given up
AHEAD = 4  # items under way or waiting in order, for each worker: what bounds the results in memory

Item = TypeVar("Item")
Result = TypeVar("Result")
Handle = TypeVar("Handle")


class WorkerLost(Exception):
    """The worker was killed while an item was there; any item there may be the cause."""


class Executor(ABC, Generic[Handle]):
    """Maps functions over items; use it as a context manager, which leaves nothing running."""

    def __enter__(self) -> Self:
        """Start."""
        return self

    @abstractmethod
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """End all work; after an error without waiting for it."""

    @abstractmethod
    def ahead(self) -> int:
        """How many items may be under way or finished and not yet asked for."""

    @abstractmethod
    def submit(self, call: "Call") -> Handle:
        """Begin an item."""

    @abstractmethod
    def result(self, handle: Handle) -> Any:
        """Wait for an item. Raises `WorkerLost`, or what the function raised."""

    @abstractmethod
    def alone(self, call: "Call", others: Sequence[Handle]) -> Any:
        """Run an item while no other one is at its worker. Raises `WorkerLost` if it killed `KILLS` workers."""

    def map(
        self,
        work: Callable[..., Result],
        items: Sequence[Item],
        *args: Any,
        needs: Sequence[str | Path] = (),
        failed: Callable[[Item, str], Result] | None = None,
    ) -> Iterator[Result]:
        """Yield ``work(item, *args)`` for each item, in the order of the items.

        Args:
            work: a function at the top of a module that every worker can import. It depends on its arguments and on
                files only, so that an item can be computed again.
            items: small values that can be pickled.
            args: further arguments, the same for every item.
            needs: files that a worker must see at the same absolute paths; addresses are not looked at.
            failed: makes the result of an item that killed its worker `KILLS` times, from the item and the reason.

        Raises:
            UserError: if such an item is there and `failed` is None, if the workers are gone, or as `work` raises it.
        """
        pending: deque[tuple[Item, Call, Handle]] = deque()
        waiting = iter(items)
        while True:
            for item in islice(waiting, max(0, self.ahead() - len(pending))):
                call = Call(work, item, args, tuple(where(path) for path in needs if "://" not in str(path)))
                pending.append((item, call, self.submit(call)))
            if not pending:
                return
            item, call, handle = pending.popleft()
            try:
                found = self.result(handle)
            except WorkerLost:
                try:
                    found = self.alone(call, [other for _, _, other in pending])
                except WorkerLost:
                    reason = f"it killed its worker {KILLS} times, most likely for want of memory"
                    if failed is None:
                        what = shortened(one_line(repr(item)), 120)
                        raise UserError(f"{what}: {reason}; set fewer workers, or free some memory") from None
                    found = failed(item, reason)
            yield found


def map_lists(
    pool: Executor[Any],
    work: Callable[..., list[Result | str]],
    lists: Sequence[list[Item]],
    *args: Any,
    needs: Sequence[str | Path] = (),
) -> Iterator[list[Result | str]]:
    """`Executor.map` of a function from lists to lists of results or faults; what kills its worker is such a fault.

    A list that does so is mapped again item by item: only the one that does it alone is given up.
    """

    def reason_alone(_: list[Item], reason: str) -> list[Result | str]:
        return [reason]

    def apart(items: list[Item], _: str) -> list[Result | str]:
        singles = [[item] for item in items]
        each = pool.map(work, singles, *args, needs=needs, failed=reason_alone)
        return [made for (made,) in each]

    return pool.map(work, lists, *args, needs=needs, failed=apart)


def where(path: str | Path) -> str:
    """A path as workers that run in other folders can read it; an address stays."""
    return str(path) if "://" in str(path) else str(Path(path).absolute())


class Call:
    """A function with its arguments, as it travels to a worker."""

    def __init__(self, work: Callable[..., Any], item: Any, args: tuple[Any, ...], needs: tuple[str, ...]) -> None:
        self.work, self.item, self.args, self.needs = work, item, args, needs

    def run(self) -> Any:
        """Call it."""
        return self.work(self.item, *self.args)


def _begin_worker() -> None:
    """Have a worker end when its parent was killed, rather than wait for work for ever.

    Ctrl-C reaches all processes of a terminal: the parent ends the workers then.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class LocalExecutor(Executor[Future[Any]]):
    """Processes of this machine.

    Args:
        workers: how many; 1 works in this process.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.pool: ProcessPoolExecutor | None = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """End the processes."""
        self._end(kind is not None)

    def _start(self, workers: int) -> ProcessPoolExecutor:
        # spawn: a forked child of a process that has threads (torch, tqdm) may hang.
        self.pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin_worker)
        return self.pool

    def _end(self, now: bool) -> None:
        pool, self.pool = self.pool, None
        if pool is None:
            return
        if now:  # ProcessPoolExecutor.kill_workers comes with Python 3.14
            for process in list((pool._processes or {}).values()):
                process.kill()
        pool.shutdown(wait=True, cancel_futures=True)

    def ahead(self) -> int:
        """In this process one at a time."""
        return 1 if self.workers == 1 else AHEAD * self.workers

    def submit(self, call: Call) -> Future[Any]:
        """Give it to the processes; with one worker do it now."""
        if self.workers == 1:
            done: Future[Any] = Future()
            done.set_result(call.run())
            return done
        with suppress(BrokenProcessPool):
            return (self.pool or self._start(self.workers)).submit(call.run)
        self._end(True)  # a worker was killed since; what was under way is run alone when its turn comes
        return self._start(self.workers).submit(call.run)

    def result(self, handle: Future[Any]) -> Any:
        """Wait for it."""
        try:
            return handle.result()
        except BrokenProcessPool:
            raise WorkerLost from None

    def alone(self, call: Call, others: Sequence[Future[Any]]) -> Any:
        """Run it in a process of its own. It killed one in company already."""
        for _ in range(KILLS - 1):
            with LocalExecutor(2) as one, suppress(BrokenProcessPool):
                return one._start(1).submit(call.run).result()
        raise WorkerLost


def executor(workers: int) -> Executor[Any]:
    """Where a stage's items are worked on: the Dask cluster at ``MUOMNI_DASK`` if that is set, else local processes.

    Args:
        workers: local processes; 1 works in this one.

    Raises:
        UserError: if the cluster cannot be reached, or the packages for it are missing.
    """
    address = os.environ.get(ADDRESS, "").strip()
    if not address:
        return LocalExecutor(workers)
    from muomni.data.dask_cluster import DaskExecutor

    return DaskExecutor(address)


def in_processes(
    work: Callable[..., Result], items: Sequence[Item], workers: int, *args: Any, needs: Sequence[str | Path] = ()
) -> Iterator[Result]:
    """`Executor.map` by an executor of its own, which ends with the last result."""
    with executor(workers) as pool:
        yield from pool.map(work, items, *args, needs=needs)
