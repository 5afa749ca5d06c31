"""A Dask cluster by the address of its scheduler, as an executor for data stages.

Dask pickles functions and values over the network: who reaches the scheduler runs code as the user of its workers. Use
it on the loopback or a network that you trust, or with TLS, which Dask's own configuration sets (docs/cluster.md).
"""

import hashlib
import importlib.metadata
import logging
import platform
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from muomni.data.processes import ADDRESS, Call, Executor, WorkerLost
from muomni.errors import UserError, one_line

try:
    from dask.sizeof import sizeof
    from distributed import CancelledError, Client, Future, KilledWorker
except ImportError:
    raise UserError(f"{ADDRESS}: a Dask cluster needs further packages; `pip install 'muomni[cluster]'`") from None

LARGEST_CALL = 4_000_000  # bytes of a function's arguments: what is large is read from files by the worker
LARGEST_RESULT = 512_000_000  # bytes; several of them wait here for their turn
PACKAGES = ("numpy", "pillow", "soundfile", "av", "soxr", "torch", "hibari-tts", "espeakng-loader", "resvg-py")
CONNECTING, WORKERLESS = 15.0, 60.0  # seconds until a scheduler has answered, and until there is a worker

_one_at_a_time = threading.Lock()  # a worker has several threads; voices and their libraries are not made for that


@cache
def code_fingerprint() -> str:
    """A hash of what decides the bytes that a worker makes: muomni's source and the versions of what computes."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256(platform.python_version().encode())
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "none"
        digest.update(f"{name}={version}\0".encode())
    return digest.hexdigest()


def run_on_worker(call: Call, fingerprint: str) -> Any:
    """Run a call on a worker.

    Raises:
        UserError: if the worker has other code, does not see the files, or the result is too large.
    """
    where = f"Dask worker on {platform.node()}"
    if code_fingerprint() != fingerprint:
        raise UserError(
            f"{where}: has another version of muomni, Python or a package than this machine; install the same, "
            "and start the worker again"
        )
    for path in call.needs:
        if not Path(path).exists():
            raise UserError(f"{where}: {path} is not there; have every worker see the project at the same path")
    try:
        with _one_at_a_time:
            made = call.run()
    except UserError as error:
        raise UserError(f"{error} ({where})") from None
    size = sizeof(made)
    if size > LARGEST_RESULT:
        raise UserError(
            f"{where}: a result has {size / 1e6:.0f} MB, over {LARGEST_RESULT / 1e6:.0f}; make tasks smaller"
        )
    return made


class DaskExecutor(Executor[Future[Any]]):
    """A Dask cluster.

    Args:
        address: of the scheduler, such as ``tcp://127.0.0.1:8786``.

    Raises:
        UserError: if it cannot be reached, or has no worker.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._asked, self._threads = 0.0, 1
        names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "distributed"]
        self._levels = {name: logging.getLogger(name).level for name in names}
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong is told in one line
        try:
            self.client = Client(address, timeout=CONNECTING, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            self._log_again()
            what = one_line(error)[:200]
            raise UserError(f"{address}: no Dask scheduler answers ({what}); start one, or unset {ADDRESS}") from None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Take back what is not done. A worker ends the item that it is at, and its result is dropped."""
        with suppress(TimeoutError, OSError):  # of a scheduler that is gone
            self.client.close(timeout=5)
        self._log_again()

    def _log_again(self) -> None:
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)

    def ahead(self) -> int:
        """Two for each thread of the cluster, so that none waits for the next one to travel."""
        now = time.monotonic()
        if now - self._asked > 5:
            self._asked = now
            self._threads = sum(self._ask_threads().values())
        return max(4, 2 * self._threads)

    def _ask_threads(self) -> dict[str, int]:
        try:
            return dict(self.client.nthreads())
        except (OSError, ValueError, RuntimeError):
            raise self._gone() from None

    def _gone(self) -> UserError:
        return UserError(
            f"{self.address}: the Dask scheduler is gone; start it again, or unset {ADDRESS}, and run again"
        )

    def submit(self, call: Call) -> Future[Any]:
        """Send it.

        Raises:
            ValueError: if a worker cannot import the work, or an item is too large to send.
        """
        if call.work.__module__ == "__main__" or "<" in call.work.__qualname__:
            raise ValueError(f"{call.work.__qualname__} cannot be imported by a worker")
        size = sizeof(call.item) + sizeof(call.args)
        if size > LARGEST_CALL:
            raise ValueError(f"{call.work.__qualname__}: an item of {size} bytes; send a path instead")
        key = f"{call.work.__name__}-{uuid.uuid4().hex}"
        return self.client.submit(run_on_worker, call, code_fingerprint(), key=key, pure=False)

    def result(self, handle: Future[Any]) -> Any:
        """Wait for it, as long as there are a scheduler and a worker."""
        try:
            return self._patiently(handle.result)
        except KilledWorker:
            raise WorkerLost from None

    def _patiently(self, ask: Callable[..., Any]) -> Any:
        """Call a future's method until it returns."""
        workerless = time.monotonic()
        while True:
            try:
                return ask(timeout=2)
            except CancelledError:
                raise self._gone() from None
            except TimeoutError:
                if self.client.status != "running":
                    raise self._gone() from None
                if self._ask_threads():
                    workerless = time.monotonic()
                elif time.monotonic() - workerless > WORKERLESS:
                    raise UserError(
                        f"{self.address}: has had no Dask worker for {WORKERLESS:.0f} s; start one, and run again"
                    ) from None

    def alone(self, call: Call, others: Sequence[Future[Any]]) -> Any:
        """Run it once no other item is under way: Dask counts a killed worker for every item that was waiting there.

        The scheduler counts, and gives up after one more than its ``allowed-failures``, 3 by default.
        """
        for other in others:
            self._patiently(other.exception)
        return self.result(self.submit(call))
