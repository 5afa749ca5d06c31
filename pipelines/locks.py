"""Files that tell who is alive: a lock on one goes with the process that holds it, however that ends."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from muomni.data.files import naming
from muomni.errors import UserError


class Busy(Exception):
    """Another process holds the lock; `who` is what it wrote."""

    def __init__(self, who: dict[str, Any]) -> None:
        super().__init__(str(who))
        self.who = who


def told(text: str) -> dict[str, Any]:
    """What a holder wrote; empty if it has not yet."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def opened(path: Path) -> IO[str]:
    """A lock's file, made if it is not there.

    Raises:
        UserError: if it cannot be.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+", encoding="utf-8")
    except OSError as error:
        raise no_lock(path, error) from None


def no_lock(path: Path, error: OSError) -> UserError:
    """What to say of a lock that cannot be taken though nobody holds it."""
    return UserError(
        f"{path}: cannot be locked ({error.strerror}); check the rights of its folder, or have MUOMNI_STATE "
        "name another, on a disk of this machine"
    )


def take(path: Path, who: Mapping[str, Any] | None = None) -> IO[str]:
    """Hold a file's lock as long as the returned file is open.

    flock and not lockf: another look at the file by the same process must not give the lock away.

    Args:
        path: the file; it is made, and stays.
        who: written into it, with the process's id.

    Raises:
        Busy: if another process holds it.
        UserError: if it cannot be taken for another reason.
    """
    file = opened(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        found = told(file.read())
        file.close()
        raise Busy(found) from None
    except OSError as error:
        file.close()
        raise no_lock(path, error) from None
    with naming(path):
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), **(who or {})}))
        file.flush()
    return file


@contextmanager
def held(path: Path, who: Mapping[str, Any] | None = None) -> Iterator[None]:
    """`take` for the time of a block."""
    with take(path, who):
        yield


def holder(path: Path) -> dict[str, Any] | None:
    """What the holder of a file's lock wrote, or None if nobody holds it or there is no such file.

    Raises:
        UserError: if that cannot be told.
    """
    try:
        with path.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                return told(file.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise no_lock(path, error) from None
