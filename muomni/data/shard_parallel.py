"""Shards written by several workers, with the same bytes for every number of workers and order of arrival.

The material is cut into tasks. A worker turns a task into a segment, a file of encoded samples beside the shards; this
process joins the segments in the order of the tasks and cuts them into tars. So the size of a task is independent of
the size of a shard, and a sample that is set aside moves those behind it up, by whichever worker they were made.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from muomni.data.files import atomic_write_json, naming, sha256_file, temporary_name
from muomni.data.processes import in_processes
from muomni.data.shard_format import encode_sample
from muomni.data.shard_writer import ShardWriter
from muomni.errors import UserError

Task = TypeVar("Task")
# `in_processes`, or another function that calls it on other machines, which see the same folder.
Executor = Callable[..., Iterator[Any]]


@dataclass(frozen=True)
class Made:
    """A sample: its key, its members as `ShardWriter.write` takes them, and a small JSON value to count it by."""

    key: str
    members: dict[str, Any]
    note: Any = None


@dataclass(frozen=True)
class Bad:
    """A sample that is set aside, and why."""

    item: str
    reason: str


@dataclass
class Written:
    """What a split's tasks came to: the index's entries, the samples set aside, and the samples' notes, in order."""

    shards: list[dict[str, Any]]
    bad: list[dict[str, str]] = field(default_factory=list)
    notes: list[Any] = field(default_factory=list)


def write_in_parallel(
    folder: str | Path,
    tasks: Mapping[str, Sequence[Task]],
    work: Callable[..., Iterable[Made | Bad]],
    *args: Any,
    per_shard: int,
    workers: int,
    max_bytes: int | None = None,
    inputs: str | None = None,
    needs: Sequence[str | Path] = (),
    executor: Executor = in_processes,
) -> dict[str, Written]:
    """Write the tars of all splits.

    Args:
        folder: where they go.
        tasks: of each split, what can be pickled; their order is the samples' order.
        work: a function at the top of a module; ``work(task, *args)`` gives the task's samples in order.
        args: further arguments, the same for every task.
        per_shard: samples a tar at most.
        workers: processes; 1 works in this one.
        max_bytes: bytes of samples a tar at most; None: no limit.
        inputs: names all that the samples depend on, for example a hash of configuration and corpus. Given, a run
            after one that was killed takes over the segments that are whole.
        needs: further files and folders that every worker must see at the same absolute paths.
        executor: maps `segment` over the numbered tasks, results in order, as `in_processes` does.

    Returns:
        What came of each split.

    Raises:
        ValueError: for a key that occurs twice in a split.
        UserError: if a task killed its worker again and again, a worker has another folder, or as `work` raises it.
    """
    parts = Path(folder).absolute() / ".segments"  # workers may run elsewhere
    if inputs is None:
        shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True, exist_ok=True)
    numbered = list(enumerate(task for some in tasks.values() for task in some))
    try:
        results = enumerate(executor(segment, numbered, workers, str(parts), inputs, work, args, needs=[parts, *needs]))
        found = {}
        for split, some in tasks.items():
            with ShardWriter(folder, split, per_shard, max_bytes) as writer:
                found[split] = _join(parts, islice(results, len(some)), writer, keep=inputs is not None)
            found[split].shards = writer.shards
    except BaseException:
        if inputs is None:
            shutil.rmtree(parts, ignore_errors=True)
        raise
    shutil.rmtree(parts)
    return found


def _join(parts: Path, results: Iterable[tuple[int, dict[str, Any]]], writer: ShardWriter, keep: bool) -> Written:
    """Append the samples of segments, in order."""
    written = Written([])
    for number, found in results:
        path, size = parts / f"{number:06d}", sum(size for _, size in found["samples"])
        # A worker on another machine may have the path, but on a disk of its own.
        if not path.is_file() or path.stat().st_size != size:
            raise UserError(f"{path}: a worker says that it wrote it, but it is not here; have all see the same folder")
        with path.open("rb") as file:
            for key, size in found["samples"]:
                writer.append(key, file.read(size))
        written.bad += found["bad"]
        written.notes += found["notes"]
        if not keep:
            path.unlink()
    return written


def segment(
    numbered: tuple[int, Any], parts: str, inputs: str | None, work: Callable[..., Iterable[Made | Bad]], args: Any
) -> dict[str, Any]:
    """Encode one task's samples into a file, or take over the one that is there.

    Args:
        numbered: the task's number and the task.
        parts: folder of the segments.
        inputs: see `write_in_parallel`.
        work: makes the samples.
        args: its further arguments.

    Returns:
        ``samples``, their keys and sizes in bytes in the file's order, ``bad`` and ``notes``.
    """
    number, task = numbered
    path = Path(parts) / f"{number:06d}"
    wanted = None if inputs is None else hashlib.sha256(f"{inputs}\0{task!r}".encode()).hexdigest()
    if wanted is not None and (kept := _kept(path, wanted)) is not None:
        return kept
    samples: list[list[Any]] = []
    found: dict[str, Any] = {"samples": samples, "bad": [], "notes": []}
    digest = hashlib.sha256()
    temporary = temporary_name(path)
    with naming(path), temporary.open("wb") as file:
        for item in work(task, *args):
            if isinstance(item, Bad):
                found["bad"].append({"item": item.item, "reason": item.reason})
                continue
            blocks = encode_sample(item.key, item.members)
            file.write(blocks)
            if wanted is not None:
                digest.update(blocks)
            samples.append([item.key, len(blocks)])
            if item.note is not None:
                found["notes"].append(item.note)
    os.replace(temporary, path)
    if wanted is not None:
        # Not flushed to the disk: after a power cut the hash tells whether the file is whole.
        atomic_write_json(path.with_suffix(".json"), {**found, "inputs": wanted, "sha256": digest.hexdigest()})
    return found


def _kept(path: Path, wanted: str) -> dict[str, Any] | None:
    """What a killed run wrote of a task, if it is whole and of the same inputs."""
    try:
        kept = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if kept["inputs"] != wanted or sha256_file(path) != kept["sha256"]:
            return None
        return {name: kept[name] for name in ("samples", "bad", "notes")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def runs_of(number: int, size: int) -> list[tuple[int, int]]:
    """Cut items 0 to `number` - 1 into tasks ``(first, last + 1)`` of `size`, the last one perhaps smaller."""
    return [(at, min(at + size, number)) for at in range(0, number, size)]
