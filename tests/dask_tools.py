"""A Dask cluster of real processes on the loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Cluster:
    """A scheduler and its workers."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, list[subprocess.Popen[bytes]]()
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.scheduler = self.start("scheduler", "--host", self.address, "--no-dashboard")

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
        env |= {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "2"}  # so that the third killed worker is the last
        env.pop("MUOMNI_DASK", None)
        log = (self.folder / f"dask-{len(self.processes)}.log").open("wb")
        command = [sys.executable, "-m", "dask", *words]
        # In a folder of its own: a worker does not have to run in the project's.
        process = subprocess.Popen(command, env=env, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)
        self.processes.append(process)
        return process

    def worker(self, nanny: bool = False) -> subprocess.Popen[bytes]:
        """Start one; a nanny starts it again when it dies."""
        kind = "--nanny" if nanny else "--no-nanny"
        folder = str(self.folder / "space")
        options = ("--nthreads", "1", "--no-dashboard", "--local-directory", folder, "--memory-limit", "0")
        return self.start("worker", self.address, kind, *options)

    def end(self) -> None:
        """End all, and what they started."""
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                children = psutil.Process(process.pid).children(recursive=True)
                for one in (*children, psutil.Process(process.pid)):
                    with suppress(psutil.NoSuchProcess):
                        one.send_signal(signal.SIGKILL)
            process.wait(20)


@contextmanager
def cluster(folder: Path, workers: int, nanny: bool = False) -> Iterator[Cluster]:
    """One with so many workers, all there."""
    from distributed import Client

    folder.mkdir(parents=True, exist_ok=True)
    made = Cluster(folder)
    try:
        for _ in range(workers):
            made.worker(nanny)
        until = time.monotonic() + 60
        while True:
            try:
                with Client(made.address, timeout=30, set_as_default=False) as client:
                    if workers:
                        client.wait_for_workers(workers, timeout=60)
                break
            except OSError:
                if time.monotonic() > until:
                    raise
        yield made
    finally:
        made.end()
