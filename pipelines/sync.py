"""What was not sent to MLflow in time: runs that wait, and runs whose process was killed.

A run waits in ``unsent/`` of the checkout's state folder when its stage has ended and its own folder goes. A run whose
process is gone without an end (``kill -9``, a machine that restarts) is marked KILLED; when its stage is started again,
the same run goes on.
"""

import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from muomni.data.files import atomic_write_json
from muomni.errors import UserError
from muomni.train.report import read_metrics
from pipelines import locks
from pipelines.answers import reason
from pipelines.run import common_root, take_lock
from pipelines.sender import (
    ARTIFACTS,
    CHECKPOINTS,
    METRICS,
    RUN,
    SAMPLES,
    SENT,
    Sender,
    connect,
    experiment_id,
    read,
    shown_uri,
)

KEPT = (METRICS, SENT, SAMPLES, CHECKPOINTS, ARTIFACTS, RUN)


def unsent_root() -> Path:
    """Where runs wait that could not be sent: with the checkout, since a copy and its state are removed."""
    return common_root() / "unsent"


def mark_ended(folder: Path) -> bool:
    """Note that a run whose process is gone was killed, when it last wrote; False if its end is known."""
    run = read(folder / RUN)
    if not run or run["status"] is not None:
        return False
    lines = read_metrics(folder / METRICS)
    last = lines[-1]["time"] if lines else (folder / RUN).stat().st_mtime
    atomic_write_json(folder / RUN, run | {"status": "KILLED", "ended": max(int(last * 1000), run["started"])})
    return True


def set_aside(folder: Path) -> None:
    """Keep what was not sent of a folder's run, before the folder is removed; the folder itself may be gone after.

    Moved in one go, so that a crash leaves all of it in one place.
    """
    run = read(folder / RUN)
    if not run or Sender(folder).complete():
        return
    mark_ended(folder)  # one that was killed, and its state is of no use any more
    target = unsent_root() / f"{re.sub(r'[^a-zA-Z0-9_.-]', '-', run['stage'])}-{run['key']}"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)  # half a copy, from where the folders are on two disks
    shutil.move(folder, target)
    for path in target.iterdir():
        if path.name not in KEPT and path.is_file():  # the state to resume from
            path.unlink()


def set_aside_all(root: Path) -> None:
    """`set_aside` for all that is under the folder of a run in a copy (``runs/<key>``), before that is removed."""
    for path in (*root.glob(f"state/state/*/{RUN}"), *root.glob(f"parent/{RUN}")):
        set_aside(path.parent)


def sync(quiet: bool = False) -> tuple[int, int]:
    """Send what was set aside; runs are removed when they are sent.

    Returns:
        Number of runs that were sent, and number of those that could not be.
    """
    sent = failed = 0
    with take_lock("tracking-sync", common_root()):
        for path in sorted(unsent_root().glob(f"*/{RUN}")):
            try:
                Sender(path.parent).send()
            except Exception as error:
                failed += 1
                if not quiet:
                    complain(path.parent.name, error)
                continue
            sent += 1
            shutil.rmtree(path.parent)
    return sent, failed


def complain(what: str, error: Exception) -> None:
    """One line on standard error."""
    print(f"tracking: {what}: {reason(error)}", file=sys.stderr)


def claim_parent(folder: Path) -> IO[str]:
    """Own a parent's folder as long as the returned file, the folder's name with ``.lock``, is open.

    Raises:
        UserError: if another process does, or this one already.
    """
    try:
        return locks.take(folder.with_name(f"{folder.name}.lock"))
    except locks.Busy:
        raise UserError(f"{folder}: another process works for this run; wait for it or end it") from None


def claim(folder: Path) -> IO[str]:
    """`claimed` as long as the returned file is open."""
    if folder.parent.name == "state":
        return take_lock(folder.name, folder.parents[1], sending=True)
    return claim_parent(folder)


@contextmanager
def claimed(folder: Path, until: float = 0.0) -> Iterator[None]:
    """Hold what the process of a folder's run would hold: the lock of a stage, or of a parent.

    Args:
        folder: of the run.
        until: when to stop trying, by `time.monotonic`.

    Raises:
        UserError: if that process lives.
    """
    while True:
        try:
            file = claim(folder)
            break
        except UserError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.05)
    with file:
        yield


def folders(root: Path) -> list[Path]:
    """The folders of runs under a state folder: its stages, and stages and parents of runs in copies below it."""
    patterns = (f"state/*/{RUN}", f"runs/*/state/state/*/{RUN}", f"runs/*/parent/{RUN}")
    return [path.parent for pattern in patterns for path in sorted(root.glob(pattern)) if path.parent.name[0] != "."]


def end_interrupted(root: Path, quiet: bool = False, patience: float = 0.0) -> int:
    """Mark runs as KILLED whose process is gone without an end, and have MLflow show that.

    What cannot be sent now is sent by the next call or by ``muomni track sync``.

    Args:
        root: a state folder: a checkout's, with the runs in copies below it, or that of one such run.
        quiet: say nothing if the tracker cannot be reached.
        patience: seconds to wait for processes that are just ending: one whose main thread is gone holds its lock
            until its other threads are.

    Returns:
        How many runs were marked.
    """
    marked, _, failures = tend(root, patience)
    if failures and not quiet:
        complain(f"{len(failures)} interrupted runs not sent yet", failures[0])
    return marked


def waiting(root: Path) -> bool:
    """Whether something under a state folder was not sent whose own process does not do it any more."""
    if any(unsent_root().glob(f"*/{RUN}")):
        return True
    for folder in folders(root):
        if read(folder / RUN) and not Sender(folder).complete():
            with suppress(UserError), claimed(folder):
                return True
    return False


def tend(root: Path, patience: float = 0.0) -> tuple[int, int, list[Exception]]:
    """Mark and send interrupted runs; how many were marked and sent, and why others were not sent."""
    marked, sent, failures = 0, 0, []
    end = time.monotonic() + patience
    for folder in folders(root):
        with suppress(UserError), claimed(folder, end):  # what runs sends for itself
            marked += mark_ended(folder)
            sender = Sender(folder)
            if sender.complete() or not read(folder / RUN):
                continue
            try:
                sender.send()
                sent += 1
            except Exception as error:
                failures.append(error)
    return marked, sent, failures


def sync_all() -> None:
    """The command ``muomni track sync``: send all that waits and was interrupted, and print how much.

    Raises:
        UserError: if the tracker does not answer, or something could not be sent; all that is kept.
    """
    try:
        experiment_id(connect())  # asked once, or each run would wait for the answer
    except Exception as error:
        for folder in folders(common_root()):
            with suppress(UserError), claimed(folder):
                mark_ended(folder)
        raise UserError(
            f"{shown_uri()}: MLflow does not answer ({reason(error)}); nothing is lost, "
            "run `muomni track sync` when it does"
        ) from None
    sent, failed = sync()
    _, ended, failures = tend(common_root())
    for failure in failures:
        complain("an interrupted run", failure)
    print(f"sent {sent} runs that waited and {ended} interrupted ones to {shown_uri()}")
    if failed or failures:
        raise UserError(f"{shown_uri()}: {failed + len(failures)} runs not sent; they are kept, try again later")
