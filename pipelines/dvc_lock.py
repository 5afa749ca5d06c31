"""A ``dvc.lock`` that was cut off: ``python -m pipelines.dvc_lock`` puts it aside, before dvc refuses to read it.

dvc writes its notes of results in place. Killed while it does, it leaves a file that is empty or ends in the middle,
and from then on every command of it fails. Without the file dvc finds the results of unchanged stages in its run cache.
"""

import os
import sys
from pathlib import Path

import yaml

NAME, ASIDE = "dvc.lock", "dvc.lock.broken"


def is_whole(path: Path) -> bool:
    """Whether a ``dvc.lock`` can be read, as far as its form goes."""
    try:
        notes = yaml.safe_load(path.read_text(encoding="utf-8"))
        return bool(notes["schema"]) and all(
            isinstance(stage["cmd"], str) for stage in (notes["stages"] or {}).values()
        )
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError):
        return False


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


if __name__ == "__main__":
    put_aside(Path())
