"""What a killed dvc leaves behind, put right before the next one refuses to work (`pipelines.dvc_cache.make_ready`).

dvc writes two files in place. Killed while it does, it leaves one that is empty or ends in the middle, and from then on
its commands fail:

- ``dvc.lock``, its notes of results. Without the file dvc finds the results of unchanged stages in its run cache.
- ``.dvc/tmp/rwlock``, its notes of who works on which file. dvc passes over processes that are gone, but not over one
  that nobody has waited for (a container without an init), nor over another program that has the id now.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

import psutil
from dvc import rwlock
from dvc.lock import Lock, LockError
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.serialize import YAMLError, parse_yaml
from voluptuous import Invalid

from muomni.data.files import atomic_write_json, read_json
from muomni.errors import UserError

NAME, ASIDE = "dvc.lock", "dvc.lock.broken"
MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
CLOCK = 2.0  # seconds by which the start of a process, as Linux tells it, may be off


def is_whole(path: Path) -> bool:
    """Whether a ``dvc.lock`` is as dvc writes it.

    Its own parser and schema are not enough: they take half a hash, and then dvc fails, or runs a stage again whose
    results it has.
    """
    try:
        text = path.read_text(encoding="utf-8")
        notes = COMPILED_LOCKFILE_SCHEMA(parse_yaml(text, str(path)))
    except (YAMLError, Invalid, ValueError, RecursionError):
        return False
    stages = notes.get("stages", {}).values()
    hashes = [entry.get("md5", "") for stage in stages for kind in ("deps", "outs") for entry in stage.get(kind, ())]
    return text.endswith("\n") and all(MD5.fullmatch(str(digest)) for digest in hashes)


def put_aside(folder: Path) -> bool:
    """Rename a ``dvc.lock`` that is not whole; whether there was one."""
    path = folder / NAME
    if not path.is_file() or is_whole(path):
        return False
    os.replace(path, folder / ASIDE)
    print(
        f"{path}: was cut off, probably when dvc was killed; it is {ASIDE} now. Results are taken from dvc's cache",
        file=sys.stderr,
    )
    return True


def words_for_dvc(command: str) -> list[str] | None:
    """What a command line, joined by spaces, tells dvc to do; None if it is none of dvc's."""
    words = command.split()
    places = [n for n, word in enumerate(words) if os.path.basename(word) in ("dvc", "__main__.py")]
    return words[places[-1] + 1 :] if places else None


def lives(pid: int, command: str, noted: float) -> bool:
    """Whether a process that was at work is still the one that has its id.

    Args:
        pid: its id.
        command: what dvc noted of it, the words of ``sys.argv``.
        noted: when at the latest, Unix time in seconds.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE or process.create_time() > noted + CLOCK:
            return False
        told = words_for_dvc(command)
        return told is None or told == words_for_dvc(" ".join(process.cmdline()))
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def release(folder: Path) -> bool:
    """Take the processes that are gone out of dvc's notes of who works on what; whether there were any.

    A broken file is removed: a dvc that lives would fail over it, too.
    """
    path = folder / ".dvc" / "tmp" / rwlock.RWLOCK_FILE
    if not path.is_file():
        return False
    try:
        with Lock(str(path.with_name(rwlock.RWLOCK_LOCK))):
            try:
                notes = rwlock.SCHEMA(read_json(path, "dvc"))
            except (UserError, Invalid):
                path.unlink(missing_ok=True)
                print(f"{path}: was cut off, probably when dvc was killed; removed", file=sys.stderr)
                return True
            noted = path.stat().st_mtime

            def at_work(entry: dict[str, Any]) -> bool:
                return lives(int(entry["pid"]), entry["cmd"], noted)

            readers = {name: [one for one in entries if at_work(one)] for name, entries in notes["read"].items()}
            kept = {
                "read": {name: entries for name, entries in readers.items() if entries},
                "write": {name: entry for name, entry in notes["write"].items() if at_work(entry)},
            }
            if kept == notes:
                return False
            atomic_write_json(path, kept)
            return True
    except LockError:  # a dvc that lives has it just now, and is no matter of ours
        return False


def mend(folder: Path) -> None:
    """Put right what a killed dvc left in a folder, the root of a checkout or of a copy."""
    put_aside(folder)
    release(folder)
