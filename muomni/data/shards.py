"""The index of shards, which counts and hashes them, and reading a split in the order it was written.

`muomni.data.shard_format` says what a shard's bytes are, `muomni.data.shard_writer` writes them,
`muomni.data.shard_stream` reads them in another order each epoch, shared among readers.
"""

import hashlib
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import webdataset as wds

from muomni.data.files import atomic_write_json, read_json, sha256_file
from muomni.data.shard_format import INDEX, KEY, MEMBER, SPLITS, decode_member
from muomni.data.shard_writer import ShardWriter
from muomni.errors import UserError

__all__ = [
    "INDEX",
    "SPLITS",
    "ShardWriter",
    "check_members",
    "count_samples",
    "decode_member",
    "fingerprint",
    "read_index",
    "read_shards",
    "stage_of",
    "understood",
    "write_index",
]


def write_index(
    folder: str | Path,
    splits: Mapping[str, list[dict[str, Any]]],
    bad: list[dict[str, str]],
    **more: Any,
) -> dict[str, Any]:
    """Write ``index.json``, last of all, and remove tars of an earlier run that it does not name.

    Args:
        folder: where the tars are.
        splits: each split's `ShardWriter.shards`.
        bad: items set aside with their reasons.
        more: further top-level entries, for example counts a stage wants to keep.

    Returns:
        The index.
    """
    folder = Path(folder)
    index: dict[str, Any] = {
        "splits": {
            split: {"samples": sum(shard["samples"] for shard in shards), "shards": shards}
            for split, shards in splits.items()
        },
        "bad": bad,
        **more,
    }
    named = {shard["file"] for shards in splits.values() for shard in shards}
    for path in folder.glob("*.tar"):
        if path.name not in named:
            path.unlink()
    atomic_write_json(folder / INDEX, index)
    return index


def stage_of(folder: str | Path) -> str:
    """The DVC stage that writes a folder of shards: ``data/shards/mels`` comes from ``mel-shards``."""
    return f"{Path(folder).name.removesuffix('s')}-shards"


def read_index(folder: str | Path) -> dict[str, Any]:
    """Read ``index.json``.

    Raises:
        UserError: if it is missing, damaged, or of another form.
    """
    stage = stage_of(folder)
    path = Path(folder) / INDEX
    return checked_index(read_json(path, stage), str(path), f"run `dvc repro --force {stage}`")


def checked_index(index: Any, where: str, again: str) -> dict[str, Any]:
    """The index, if it has the form that is written here.

    Args:
        index: what the file holds.
        where: its name, for the message.
        again: what to do about a bad one.

    Raises:
        UserError: if it is of another form.
    """
    try:
        for entry in index["splits"].values():
            if entry["samples"] != sum(shard["samples"] for shard in entry["shards"]):
                raise ValueError("counts differ")
            for shard in entry["shards"]:
                if not isinstance(shard["sha256"], str) or Path(shard["file"]).name != shard["file"]:
                    raise ValueError("bad file name")
                if type(shard["samples"]) is not int or shard["samples"] < 0:
                    raise ValueError("no count")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{where}: not an index of shards; {again}") from None
    checked: dict[str, Any] = index
    return checked


def fingerprint(folder: str | Path) -> str:
    """SHA-256 of the index, which holds every tar's hash: names the data in a checkpoint's card.

    Raises:
        UserError: if there is no index.
    """
    read_index(folder)
    return hashlib.sha256((Path(folder) / INDEX).read_bytes()).hexdigest()


def count_samples(folder: str | Path, split: str) -> int:
    """How many samples the index gives a split; 0 for a split it does not have."""
    splits = read_index(folder)["splits"]
    return int(splits[split]["samples"]) if split in splits else 0


def read_shards(folder: str | Path, split: str) -> Iterator[dict[str, Any]]:
    """Iterate over the samples of a split, always in the order they were written.

    Every tar is hashed before the first sample comes, so that a changed file stops a stage at its start. Each
    caller gets all samples: splitting among processes is the training loop's business.

    Args:
        folder: holds ``index.json`` and the tars.
        split: train, valid or test.

    Returns:
        An iterator of dicts: ``__key__`` and the decoded members.

    Raises:
        UserError: if the index is missing, the split is empty, a tar is missing, changed or truncated, or a
            member cannot be decoded.
    """
    folder = Path(folder)
    stage = stage_of(folder)
    again = f"run `dvc repro --force {stage}`"
    splits = read_index(folder)["splits"]
    if split not in splits or splits[split]["samples"] == 0:
        raise UserError(f"{folder / INDEX}: split '{split}' is empty; give `dvc repro {stage}` more data")
    for shard in splits[split]["shards"]:
        path = folder / shard["file"]
        if not path.is_file():
            raise UserError(f"{path}: shard is missing; {again}")
        if sha256_file(path) != shard["sha256"]:
            raise UserError(f"{path}: shard was changed or cut off (its sha256 differs from {INDEX}); {again}")
    return _samples(folder, splits[split]["shards"], again)


def check_members(path: Path) -> None:
    """Look at what a shard holds before anything of it is read.

    Tar has files with holes, and WebDataset unpacks compressed tars: a kilobyte could fill the memory.

    Raises:
        ValueError: for what `ShardWriter` does not write: other things than files, and other names.
        tarfile.TarError: if it is no tar, a compressed one, or damaged.
    """
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            if not member.isreg() or member.issparse() or not MEMBER.fullmatch(member.name):
                raise ValueError(f"{member.name[:80]!r} is no file that belongs into a shard, or has a bad name")


@contextmanager
def understood(folder: str | Path, sample: Mapping[str, Any]) -> Iterator[None]:
    """Read what a sample means: one that lacks something or has it in another form becomes a `UserError`."""
    try:
        yield
    except (UserError, KeyError, TypeError, ValueError, AttributeError, IndexError, OSError) as error:
        what = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(
            f"{folder}: sample {sample['__key__']} is not of the form that is read here "
            f"({' '.join(what.split())[:200]}); run `dvc repro --force {stage_of(folder)}`"
        ) from None


def _samples(folder: Path, shards: list[dict[str, Any]], again: str) -> Iterator[dict[str, Any]]:
    """Decode the samples of checked shards and count them."""
    for shard in shards:
        path, seen = folder / shard["file"], 0
        # An absolute path has no scheme, so WebDataset opens it as a plain file. This pipeline is what
        # wds.WebDataset builds, without its shuffling and its splitting among nodes and workers.
        source = wds.DataPipeline(wds.SimpleShardList([str(path.resolve())]), wds.tarfile_to_samples())
        try:
            check_members(path)
            for raw in source:
                if not KEY.fullmatch(raw["__key__"]):
                    raise ValueError(f"{raw['__key__'][:80]!r} is no key")
                members = {name: value for name, value in raw.items() if not name.startswith("__")}
                decoded = {name: decode_member(name, value) for name, value in members.items()}
                seen += 1
                yield {"__key__": raw["__key__"], **decoded}
        except (ValueError, EOFError, OSError, tarfile.TarError) as error:
            raise UserError(f"{path}: sample {seen} cannot be read ({' '.join(str(error).split())}); {again}") from None
        if seen != shard["samples"]:
            raise UserError(f"{path}: holds {seen} samples, {INDEX} says {shard['samples']}; {again}")
