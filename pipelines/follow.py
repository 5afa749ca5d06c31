"""Run ``dvc repro`` as a child and tell what it does: which stage began, how far it is, what it prints.

The child and all that it starts are one process group with a session of its own. It ends with the process that started
it, however that ends, and `Graph.end` ends all of it.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.redact import redacted

# What dvc and `muomni.train.report.Progress` print; there is no other way to hear of it while dvc runs.
BEGAN = re.compile(
    r"^(?:Running stage '(?P<run>[^']+)':|Stage '(?P<cached>[^']+)' is cached - |"
    r"Stage '(?P<same>[^']+)' didn't change, skipping)"
)
PROGRESS = re.compile(r"^\S+ (?P<step>\d+)/(?P<steps>\d+): (?P<text>.+ left)$")
GRACE = 4.0  # seconds between asking and forcing processes to end


@dataclass(frozen=True)
class Began:
    """A stage's turn: it runs, or ``cached`` tells that its outputs come from the cache or are there already."""

    stage: str
    cached: bool


@dataclass(frozen=True)
class Progress:
    """How far the running stage is, and what it says of it (loss, rate, time left)."""

    step: int
    steps: int
    text: str


Event = Began | Progress | str


def read(line: str) -> Event:
    """An output line's meaning; a line that has none of its own is itself."""
    if began := BEGAN.match(line):
        stage = began["run"] or began["cached"] or began["same"]
        return Began(stage, began["run"] is None)
    if found := PROGRESS.match(line):
        return Progress(int(found["step"]), int(found["steps"]), found["text"])
    return line


class Graph:
    """A running ``dvc repro``.

    Args:
        folder: where.
        targets: stages that are brought up to date with all that they need; all stages if there is none.
        env: the whole environment of the child.
    """

    def __init__(self, folder: Path, targets: Sequence[str], env: Mapping[str, str]) -> None:
        command = [sys.executable, "-m", "pipelines.attached", str(os.getpid())]
        command += [sys.executable, "-m", "dvc", "repro", *targets]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.next: Event | None = None
        self.events = self._read()

    def _read(self) -> Iterator[Event]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            # A progress bar draws over itself: what it drew last counts.
            yield read(redacted(line.rstrip("\n").rpartition("\r")[2]))

    def before(self) -> Iterator[str]:
        """Lines up to the first stage's turn."""
        return (event.text if isinstance(event, Progress) else event for event in self.during())

    def during(self) -> Iterator[Progress | str]:
        """Events up to the next stage's turn, which `turn` has then."""
        for event in self.events:
            if isinstance(event, Began):
                self.next = event
                return
            yield event

    def turn(self) -> Began | None:
        """The stage whose turn it is, or None at the end."""
        event, self.next = self.next, None
        return event if isinstance(event, Began) else None

    def end(self) -> int:
        """Make sure that nothing of it runs any more, and return dvc's exit code."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            begin = time.monotonic()
            if self.alive():
                with suppress(ProcessLookupError):
                    os.killpg(self.process.pid, sign)
            while self.alive() and time.monotonic() - begin < GRACE:
                time.sleep(0.05)
        return self.process.wait()

    def alive(self) -> bool:
        """Whether a process of its group runs."""
        self.process.poll()
        return any(running(process, self.process.pid) for process in psutil.process_iter(["status"]))


def running(process: psutil.Process, group: int) -> bool:
    """Whether a process runs and is of a group. A dead one that nobody asked for its exit code does not run."""
    try:
        return process.info["status"] != psutil.STATUS_ZOMBIE and os.getpgid(process.pid) == group
    except ProcessLookupError:
        return False
