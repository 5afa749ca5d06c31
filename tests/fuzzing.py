"""Fuzzing guided by coverage, in a process of its own that a watchdog looks after.

Inputs that reach lines of muomni that none reached before are kept, and changed further.
"""

import hashlib
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz_inputs import ROOT
from fuzz_targets import Target, targets

from muomni.errors import UserError

SOURCE = str(ROOT / "muomni")
HANGS = 3.0  # times a target's limit, after which its process is ended
MESSAGE = 1000  # characters that a message may have
BEYOND_MB = 3000  # that a process may take above its target's limit, which is a fault by then, before it gets no more
KEPT = 200_000  # bytes of an input that may be changed further
MIXED = 0.1  # share of inputs that are two that were put together


@dataclass
class Report:
    """What a target's inputs did."""

    inputs: int = 0
    accepted: int = 0
    lines: int = 0
    slowest: float = 0.0
    memory_mb: float = 0.0
    faults: list[str] = field(default_factory=list)


class Lines:
    """The lines of muomni that a call runs through."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        """A trace function: only frames of muomni are followed line by line."""
        return self.line if frame.f_code.co_filename.startswith(SOURCE) else None

    def line(self, frame: FrameType, event: str, arg: object) -> Any:
        """Note a line."""
        self.seen.add((frame.f_code.co_filename, frame.f_lineno))
        return self.line


def memory(key: str) -> float:
    """A figure of ``/proc/self/status`` in MB."""
    text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith(key))


def attempt(target: Target, data: bytes, seen: Lines) -> tuple[bool, float, float, str]:
    """Read one input: whether it was accepted, seconds, MB, and what was wrong."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
    before, began, fault, accepted = memory("VmRSS"), time.process_time(), "", False
    sys.settrace(seen)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            target.read(data)
        accepted = True
    except UserError as error:
        if "\n" in str(error) or len(str(error)) > MESSAGE:
            fault = f"a message of several lines or {len(str(error)):,} characters: {str(error)[:500]!r}"
    except BaseException:
        fault = traceback.format_exc(limit=-3)
    finally:
        sys.settrace(None)
    seconds, grown = time.process_time() - began, memory("VmHWM") - before
    if seconds > target.seconds:
        fault = fault or f"took {seconds:.1f} s, more than {target.seconds:.0f}"
    if grown > target.memory_mb:
        fault = fault or f"took {grown:.0f} MB, more than {target.memory_mb:.0f}"
    return accepted, seconds, grown, fault


def inputs(target: Target, rng: random.Random, corpus: list[bytes]) -> Iterator[bytes]:
    """The thought-out ones first, then changed ones, without end."""
    yield from list(corpus)
    while True:
        data = rng.choice(corpus)
        if rng.random() < MIXED:
            other = rng.choice(corpus)
            if len(data) + len(other) < KEPT:
                data = data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]
        yield target.spoil(data, rng)


def child(name: str, seed: str, count: int, skip: int, folder: str, pipe: Connection) -> None:
    """Fuzz one target; tells its parent of every input before it is read, and what came of it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    target = next(t for t in targets(Path(folder)) if t.name == name)
    os.chdir(folder)  # whatever a name that was drawn leads to
    rng, seen, corpus = random.Random(seed), Lines(), target.corpus()
    most = int((memory("VmSize") + target.memory_mb + BEYOND_MB) * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    pipe.send(("ready",))
    for number, data in enumerate(inputs(target, rng, corpus)):
        if number == count:
            break
        if number < skip:
            continue
        pipe.send(("begin", number, data))
        known = len(seen.seen)
        accepted, seconds, grown, fault = attempt(target, data, seen)
        if len(seen.seen) > known and len(data) < KEPT:
            corpus.append(data)
        pipe.send(("end", accepted, seconds, grown, len(seen.seen), fault))
    pipe.send(("done",))


def fuzz(name: str, seconds: float, seed: int, count: int, kept: Path | None = None) -> Report:
    """Fuzz a target.

    Args:
        name: of the target.
        seconds: its limit for an input.
        seed: of all that is drawn.
        count: inputs.
        kept: a folder for the inputs that showed a fault.
    """
    report, tried = Report(), 0
    context = multiprocessing.get_context("spawn")
    while tried < count and len(report.faults) < 20:
        with tempfile.TemporaryDirectory(prefix="muomni-fuzz-") as folder:
            ours, theirs = context.Pipe()
            work = f"{folder}/work"
            process = context.Process(target=child, args=(name, f"{seed}/{name}", count, tried, work, theirs))
            process.start()
            theirs.close()
            data, limit, fault = b"", 300.0, ""
            try:
                while True:
                    if not ours.poll(limit):
                        fault = f"hangs: no end after {limit:.0f} s"
                        break
                    word, *rest = ours.recv()
                    if word == "begin":
                        tried, data, limit = rest[0] + 1, rest[1], HANGS * seconds
                    elif word == "end":
                        accepted, took, grown, lines, wrong = rest
                        report.inputs += 1
                        report.accepted += accepted
                        report.lines = max(report.lines, lines)
                        report.slowest = max(report.slowest, took)
                        report.memory_mb = max(report.memory_mb, grown)
                        if wrong:
                            keep(report, kept, name, data, wrong)
                    elif word == "done":
                        break
            except EOFError:
                fault = "the process died"
            process.kill()
            process.join()
            if fault:
                report.inputs += 1
                keep(report, kept, name, data, f"{fault} (exit code {process.exitcode})")
    return report


def keep(report: Report, folder: Path | None, name: str, data: bytes, fault: str) -> None:
    """Note a fault, and keep its input."""
    place = ""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name.replace(' ', '-')}-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        place = f" [{path}]"
    report.faults.append(f"{fault}{place}")
