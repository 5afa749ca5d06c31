"""Files of the data stages: written whole or not at all, hashed, and described by a manifest."""

import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from muomni.errors import UserError

MANIFEST = "manifest.json"
HASHERS, HASHED_AT_ONCE = 8, 4096  # threads at most, files
FLUSHES = 16  # files that are written to the disk at a time


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Have errors of the operating system tell the file: a write to a full disk does not say which it was."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = os.fspath(path)
        raise


def flush(path: str | Path) -> None:
    """Have a file's content, or a folder's entries, written to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folder(folder: str | Path) -> None:
    """`flush` everything below a folder, and the folder itself: before a rename that makes it count.

    Many at a time: a disk that is asked for thousands of small files one after the other takes several times as long.
    """
    paths = (path for path in Path(folder).rglob("*") if path.is_dir() or path.is_file())
    with ThreadPoolExecutor(FLUSHES) as threads:
        for _ in threads.map(flush, paths):
            pass
    flush(folder)


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a finished file its name; a machine that stops leaves the old content or the new, never a part."""
    flush(temporary)
    os.replace(temporary, path)
    flush(path.parent)


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it, so that nobody ever sees half of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with naming(path):
            temporary.write_bytes(data)
            put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: str | Path) -> Path:
    """The hidden name beside `path` that this process writes to before it renames."""
    path = Path(path)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def atomic_write_text(path: str | Path, text: str) -> None:
    """Like `atomic_write_bytes`, for text in UTF-8."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: str | Path, value: Any) -> None:
    """Write JSON with sorted keys, so that equal values give equal files.

    Raises:
        ValueError: for NaN or infinity, which JSON does not have.
    """
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    atomic_write_text(path, text + "\n")


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line, keys sorted."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with naming(path):
            with temporary.open("w", encoding="utf-8", newline="") as file:  # by lines: there may be millions
                for row in rows:
                    file.write(json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")
            put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: str | Path, made_by: str) -> Any:
    """Read a JSON file that a stage wrote.

    Args:
        path: the file.
        made_by: the DVC stage that writes it, for the message.

    Raises:
        UserError: if it is missing or no JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `dvc repro {made_by}`")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # includes UnicodeDecodeError
        raise UserError(f"{path}: not valid JSON ({error}); run `dvc repro --force {made_by}`") from None


def _shared(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are the same texts as those of others: many rows then take a third less memory."""
    return {sys.intern(key): value for key, value in pairs}


def read_jsonl(path: str | Path, made_by: str) -> Iterator[dict[str, Any]]:
    """Read a file of one JSON object a line that a stage wrote.

    Raises:
        UserError: if it is missing, or a line is no JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; run `dvc repro {made_by}`")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line, object_pairs_hook=_shared)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise UserError(f"{path}:{number}: not a JSON object; run `dvc repro --force {made_by}`")
            yield row


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_folder(folder: str | Path, leave_out: Iterable[str] = (MANIFEST,)) -> str:
    """One SHA-256 over the relative names and contents of all files below a folder, in sorted order.

    Args:
        folder: the folder.
        leave_out: relative names that do not count; hidden files never do.
    """
    folder = Path(folder)
    skipped = set(leave_out)
    digest = hashlib.sha256()
    files = [
        (name, path)
        for path in sorted(folder.rglob("*"))
        if (name := path.relative_to(folder).as_posix()) not in skipped
        and path.is_file()
        and not path.name.startswith(".")
    ]
    with ThreadPoolExecutor(min(HASHERS, os.cpu_count() or 1)) as pool:  # hashing lets other threads work
        for at in range(0, len(files), HASHED_AT_ONCE):
            some = files[at : at + HASHED_AT_ONCE]
            for (name, _), found in zip(some, pool.map(sha256_file, [path for _, path in some]), strict=True):
                digest.update(f"{name}\0{found}\n".encode())
    return digest.hexdigest()


def licence(package: str, name: str, what: str) -> dict[str, str]:
    """A manifest's entry for what came from a package: its installed version and its licence."""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    return {"package": package, "version": version, "licence": name, "what": what}


def write_manifest(
    folder: str | Path,
    *,
    source: str,
    licences: list[dict[str, str]],
    counts: dict[str, Any],
    splits: dict[str, Any],
    bad: list[dict[str, str]],
    **more: Any,
) -> dict[str, Any]:
    """Write ``manifest.json`` beside the finished files of a stage. Call it last: it hashes what lies there.

    Args:
        folder: what the stage wrote.
        source: where the data came from, for example ``embedded``.
        licences: entries made by `licence`.
        counts: figures about the whole.
        splits: figures a split.
        bad: items set aside, each with its reason.
        more: further entries that a stage wants to keep.

    Returns:
        The manifest: the arguments and ``sha256`` over all files.
    """
    manifest = {
        "source": source,
        "licences": licences,
        "counts": counts,
        "splits": splits,
        "bad": bad,
        **more,
        "sha256": sha256_folder(folder),
    }
    atomic_write_json(Path(folder) / MANIFEST, manifest)
    return manifest


def check_manifest(folder: str | Path) -> None:
    """Compare the files of a folder with its manifest, before a stage reads what a disk may have changed.

    Args:
        folder: what `write_manifest` described: of a corpus, or of the tokenizer.

    Raises:
        UserError: if the manifest is missing or damaged, or a file is missing, changed or new.
    """
    folder = Path(folder)
    made_by = f"corpus-{folder.name}" if folder.parent.name == "corpus" else folder.name
    manifest = read_json(folder / MANIFEST, made_by)
    digest = manifest.get("sha256") if isinstance(manifest, dict) else None
    if digest != sha256_folder(folder):
        raise UserError(
            f"{folder}: its files are not those that {MANIFEST} was written for (other SHA-256); "
            f"run `dvc repro --force {made_by}`"
        )
