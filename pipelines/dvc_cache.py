"""Whether dvc's cache and outputs are what dvc believes: ``make cache``, or ``python -m pipelines.dvc_cache``.

dvc hashes an object once, when it takes it into its cache, and an output only when its time or size changes. What a
disk or a program does to them after that it hands out for right. Here everything is hashed again, offline. A damaged
object is moved out of the cache; if the output in the checkout is still right, the object is made from that. An output
that is not what ``dvc.lock`` says gets a new time, so that the next ``dvc repro`` looks at it, takes it from the cache,
or runs its stage.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from dvc.config import Config
from dvc.utils.serialize import parse_yaml

from muomni.data.files import temporary_name
from muomni.errors import UserError, ending_in_one_line
from pipelines.dvc_lock import NAME, mend

OBJECTS, ASIDE, FOLDER = "files/md5", "damaged", ".dir"


def cache_of(checkout: Path) -> Path:
    """The folder of the DVC cache."""
    return Path(Config(str(checkout / ".dvc"))["cache"].get("dir") or checkout / ".dvc" / "cache")


def md5(data: bytes | Path) -> str:
    """MD5 of bytes or of a file, by which dvc names it."""
    if isinstance(data, bytes):
        return hashlib.md5(data, usedforsecurity=False).hexdigest()
    with data.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def objects_of(path: Path) -> tuple[str, dict[str, bytes | Path]]:
    """The name that dvc gives an output, and what it keeps of it by name: files, and for a folder their list."""
    if not path.is_dir():
        return md5(path), {md5(path): path}
    names = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    listed = [{"md5": md5(file), "relpath": name} for name, file in sorted(names.items())]
    text = json.dumps(listed, sort_keys=True).encode()
    return md5(text) + FOLDER, {md5(text) + FOLDER: text} | {one["md5"]: names[one["relpath"]] for one in listed}


def put_aside_damaged(cache: Path, lists: bool = False) -> set[str]:
    """Move objects out of a cache whose bytes are not those they are named for; their names.

    dvc puts objects there by renaming them, so that each is whole from the start.

    Args:
        cache: the folder.
        lists: only lists of the files of a folder. They are small, and dvc takes from a wrong one that a stage writes
            other files than it does, and notes that.
    """
    moved = set()
    for path in sorted((cache / OBJECTS).glob(f"[0-9a-f][0-9a-f]/*{FOLDER if lists else ''}")):
        name = path.parent.name + path.name
        if len(name.removesuffix(FOLDER)) == 32 and md5(path) != name.removesuffix(FOLDER):
            target = cache / ASIDE / name
            target.parent.mkdir(exist_ok=True)
            os.replace(path, target)
            print(f"{path}: damaged; put aside as {target}", file=sys.stderr)
            moved.add(name)
    return moved


def give_back(cache: Path, name: str, data: bytes | Path) -> None:
    """Put an object into a cache, as dvc does: whole, and read-only."""
    path = cache / OBJECTS / name[:2] / name[2:]
    temporary = temporary_name(path)
    try:
        if isinstance(data, bytes):
            temporary.write_bytes(data)
        else:
            shutil.copyfile(data, temporary)
        temporary.chmod(0o444)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def outputs(root: Path) -> list[tuple[Path, str]]:
    """The outputs that ``dvc.lock`` knows, and the name that dvc gives to what they should be."""
    lock = root / NAME
    notes: dict[str, Any] = parse_yaml(lock.read_text(encoding="utf-8"), str(lock)) if lock.is_file() else {}
    entries = [entry for stage in notes.get("stages", {}).values() for entry in stage.get("outs", ())]
    return [(root / entry["path"], entry["md5"]) for entry in entries if (root / entry["path"]).exists()]


def compare_outputs(root: Path, cache: Path, missing: set[str]) -> list[Path]:
    """Outputs that are not what ``dvc.lock`` says; dvc looks at them again from now on.

    Args:
        root: of the checkout.
        cache: its cache.
        missing: names of objects that were put aside; those that an output still has are put back.
    """
    changed = []
    for path, wanted in outputs(root):
        name, objects = objects_of(path)
        if name == wanted:
            for lost in missing & objects.keys():
                give_back(cache, lost, objects[lost])
            continue
        for file in (path, *path.rglob("*")):
            os.utime(file)
        print(f"{path}: is not what {NAME} says", file=sys.stderr)
        changed.append(path)
    return changed


def make_ready(root: Path) -> None:
    """What is quick and without which a run goes wrong: what a killed dvc left, and the cache's lists of folders.

    Args:
        root: of a checkout or of a copy.
    """
    mend(root)
    cache = cache_of(root)
    missing = put_aside_damaged(cache, lists=True)
    if missing:
        compare_outputs(root, cache, missing)


def check(root: Path) -> bool:
    """Check the whole cache and the outputs of a checkout, and tell; whether all is right."""
    mend(root)
    cache = cache_of(root)
    missing = put_aside_damaged(cache)
    changed = compare_outputs(root, cache, missing)
    sizes = [path.stat().st_size for path in (cache / OBJECTS).glob("??/*")]
    print(f"{cache}: {len(sizes):,} objects of {sum(sizes) / 1e6:,.0f} MB are as they were taken in")
    if missing or changed:
        print("`make repro` takes what was damaged or changed from what is whole, or makes it again", file=sys.stderr)
    return not missing and not changed


def main() -> None:
    """Exit code 0 if all is right, 1 if something was damaged or changed, 2 if that cannot be told.

    Raises:
        UserError: if this is no DVC repository.
    """
    parser = argparse.ArgumentParser(description="Hash dvc's cache and the stages' outputs again.")
    parser.add_argument("--quick", action="store_true", help="only what `make repro` does before it starts")
    with ending_in_one_line():
        quick = parser.parse_args().quick
        if not (Path() / ".dvc").is_dir():
            raise UserError(f"{Path.cwd()}: no DVC repository; run this in the root of the checkout")
        if quick:
            make_ready(Path())
        elif not check(Path()):
            sys.exit(1)


if __name__ == "__main__":
    main()
