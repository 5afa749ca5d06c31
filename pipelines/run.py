"""What every stage entry point shares: one process at a time, one-line errors, its time and memory on record.

An entry point ends with::

    if __name__ == "__main__":
        main("tokens", run)

State lives in the folder that the environment variable ``MUOMNI_STATE`` names, ``.muomni`` by default::

    times/<stage>.json   how long the last finished run took, and its peak memory (not a DVC output, so
                         that a stage that DVC takes from its cache keeps the figures of the run that made it)
    state/<stage>/       unfinished work, such as a training checkpoint to resume from
    state/<stage>.lock   held while the stage runs
"""

import ctypes
import fcntl
import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Self

import psutil

from muomni.data.files import atomic_write_json, flush, flush_folder, naming
from muomni.errors import UserError, one_line, refused
from muomni.no_tmp import allow_no_tmp
from pipelines.locks import no_lock, opened

PR_SET_PDEATHSIG = 1  # linux/prctl.h
SENDING, SENDING_TAKES = "sending", 90.0  # what a lock says of its holder; seconds to wait for that
FIRST_TELLS = 6.0  # seconds that the other processes of a training wait before they tell an error
SHELLS = ("sh", "dash", "bash", "zsh", "fish", "busybox", "ksh")


def state_root() -> Path:
    """Absolute path of the folder that ``MUOMNI_STATE`` names, by default ``.muomni`` here."""
    return Path(os.environ.get("MUOMNI_STATE") or ".muomni").absolute()


def common_root() -> Path:
    """The state folder of the checkout, also for a run in a copy, whose own one is ``<common>/runs/<key>/state``."""
    root = state_root()
    return root.parents[2] if root.name == "state" and root.parent.parent.name == "runs" else root


def state_dir(stage: str) -> Path:
    """Absolute path of the folder for a stage's unfinished work; it exists afterwards."""
    path = state_root() / "state" / stage
    path.mkdir(parents=True, exist_ok=True)
    return path


def publish(made: Path, final: Path) -> None:
    """Put a finished folder in its place, so that nobody sees half of it; what was there before is removed.

    Args:
        made: the finished folder, on the same file system as ``final``.
        final: where it belongs.
    """
    old = made.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    final.parent.mkdir(parents=True, exist_ok=True)
    flush_folder(made)
    if final.exists():
        final.rename(old)
    made.rename(final)
    flush(final.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def new_dir(final: str | Path, within: str | Path | None = None) -> Iterator[Path]:
    """An empty folder to write into, put in the place of ``final`` when the block ends without an error.

    An error removes it. A killed run leaves it behind, for the next run to empty.

    Args:
        final: where it belongs.
        within: where it is meanwhile, by default beside ``final``. Another folder where another stage reads all that
            is beside ``final``: what a killed run left there would be read, or change what dvc compares.
    """
    final = Path(final)
    made = (final.parent if within is None else Path(within)) / f".{final.name}.partial"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    try:
        yield made
        publish(made, final)
    finally:
        shutil.rmtree(made, ignore_errors=True)


class PeakMemory:
    """The most memory that this process and its children held together, looked at once in a while.

    The counters that Linux keeps for finished children (``getrusage``) do not do: a child that is started from a large
    process counts all that its parent held at that moment.

    Args:
        every: seconds between two looks.
    """

    def __init__(self, every: float = 0.5) -> None:
        self.largest = 0
        self._every, self._done = every, threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop, and count what this process alone held between two looks."""
        self._done.set()
        self._thread.join()
        status = Path("/proc/self/status")
        marks = status.read_text().splitlines() if status.exists() else []  # Linux
        self.largest = max(self.largest, *(int(m.split()[1]) * 1024 for m in marks if m.startswith("VmHWM:")), 0)

    def _watch(self) -> None:
        me = psutil.Process()
        while True:
            with suppress(psutil.Error):  # a child may be gone by the time it is looked at
                children = me.children(recursive=True)
                # What forked workers share with their parent counts once (PSS); asking for that takes longer.
                held = [p.memory_full_info().pss for p in (me, *children)] if children else [me.memory_info().rss]
                self.largest = max(self.largest, sum(held))
            if self._done.wait(self._every):
                return


def parent_of(pid: int) -> tuple[str, int]:
    """Name of a process and the id of its parent (Linux)."""
    name, _, rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")
    return name.partition("(")[2], int(rest.split()[1])


def end_after(pid: int) -> None:
    """Wait until a process has ended, then end this one."""
    with suppress(ProcessLookupError):
        watched = select.poll()
        watched.register(os.pidfd_open(pid), select.POLLIN)
        watched.poll()
    os.kill(os.getpid(), signal.SIGTERM)


def end_with_parent() -> None:
    """Have Linux end this process when the one that started it dies."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_with_dvc() -> None:
    """Have Linux end this process when the dvc that started it dies.

    A ``kill`` of dvc alone would leave the training running, and the next ``dvc repro`` refused. Only
    under dvc (it sets ``DVC_STAGE``): a run started by hand may outlive its shell.
    """
    if sys.platform != "linux" or "DVC_STAGE" not in os.environ:
        return
    end_with_parent()
    # dvc runs a command through a shell. bash gives its place to the command, so that dvc is the parent; dash
    # stays in between and outlives dvc.
    name, above = parent_of(os.getppid())
    if name in SHELLS and above > 0:
        threading.Thread(target=end_after, args=(above,), daemon=True).start()


def take_lock(stage: str, root: Path | None = None, sending: bool = False) -> IO[str]:
    """Claim a stage for this process, as long as the returned file stays open.

    Args:
        stage: its name.
        root: the state folder; by default `state_root`.
        sending: only to send what the stage left. A stage that starts meanwhile waits for that.

    Raises:
        UserError: if another process runs the stage, or the lock cannot be taken for another reason.
    """
    path = (root or state_root()) / "state" / f"{stage}.lock"
    file, begin = opened(path), time.monotonic()
    while True:
        try:
            # lockf and not flock: a forked data loader that outlives a killed trainer would keep a flock.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            patience = SENDING_TAKES if holder.endswith(SENDING) else 0.2  # it may be about to write who it is
            if not sending and time.monotonic() - begin < patience:
                time.sleep(0.05)
                continue
            file.close()
            raise UserError(
                f"{path}: stage '{stage}' is running already (process {holder}); wait for it or end it"
            ) from None
        except OSError as error:
            file.close()
            raise no_lock(path, error) from None
    with naming(path):
        file.truncate(0)
        file.write(f"{os.getpid()}{' ' + SENDING if sending else ''}\n")
        file.flush()
    return file


def record(stage: str, seconds: float, peak: int) -> None:
    """Write a finished stage's time and memory (bytes), read by `pipelines.times`."""
    path = state_root() / "times" / f"{stage}.json"
    figures = {
        "stage": stage,
        "seconds": round(seconds, 2),
        "peak_mb": round(peak / 1e6),
        "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    atomic_write_json(path, figures)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Run a stage's work: ends with dvc, alone on its state, its time and memory recorded if it finishes.

    Under ``torchrun`` only rank 0 takes the lock and records.
    """
    end_with_dvc()
    if int(os.environ.get("RANK", "0")) != 0:
        yield
        return
    with take_lock(name):
        begin = time.monotonic()
        with PeakMemory() as memory:
            yield
        record(name, time.monotonic() - begin, memory.largest)


def let_first_tell() -> None:
    """Before an error is told: what all processes of ``torchrun`` meet, the first one tells, which ends the others."""
    if int(os.environ.get("RANK", "0")) > 0:
        time.sleep(FIRST_TELLS)


def main(name: str, work: Callable[[], object]) -> None:
    """Run a stage as a program: a `UserError` becomes one line on standard error and exit code 2.

    Args:
        name: the stage's name in ``dvc.yaml``.
        work: does it, called without arguments.
    """
    try:
        allow_no_tmp()
        with stage(name):
            work()
    except UserError as error:
        let_first_tell()
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        told = refused(error)
        if told is None:
            raise
        let_first_tell()
        print(f"error: {one_line(told)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"error: stage '{name}' was interrupted", file=sys.stderr)
        sys.exit(130)
