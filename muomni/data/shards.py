"""WebDataset shards: tars whose bytes depend on the samples only, and an index that counts and hashes them.

A sample is a key and its members: ``<key>.json``, ``<key>.npy``, ``<key>.png``, ``<key>.0.flac`` ... What
follows the key's dot is the member's name in the sample's dict. Values are decoded here, by that name:
``json`` to a dict, ``npy`` to an array without pickle, anything else stays bytes.
"""

import hashlib
import io
import json
import math
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import webdataset as wds

from muomni.data.files import atomic_write_json, naming, put_in_place, read_json, sha256_file, temporary_name
from muomni.errors import UserError

INDEX = "index.json"
SPLITS = ("train", "valid", "test")
# A dot would end the key for every reader of WebDataset, a leading underscore could be its metadata.
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
MEMBER = re.compile(KEY.pattern + r"(\.[A-Za-z0-9_-]+)+")


def encode_member(name: str, value: Any) -> bytes:
    """Bytes of one member: sorted JSON for ``*json``, ``numpy.save`` for ``*npy``, else as given."""
    kind = name.rpartition(".")[2]
    if kind == "json":
        return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
    if kind == "npy":
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(value), allow_pickle=False)
        return buffer.getvalue()
    if not isinstance(value, bytes):
        raise TypeError(f"member {name}: expected bytes, got {type(value).__name__}")
    return value


def decode_member(name: str, data: bytes) -> Any:
    """The inverse of `encode_member`. Raises ValueError on damaged data; never unpickles."""
    kind = name.rpartition(".")[2]
    if kind == "json":
        try:
            return json.loads(data)
        except RecursionError:
            raise ValueError(f"{name}: more levels of JSON than can be read") from None
    if kind == "npy":
        return decode_array(name, data)
    return data


def decode_array(name: str, data: bytes) -> np.ndarray[Any, Any]:
    """An array as `numpy.save` writes it; its size is compared with the header's before memory is taken for it.

    Raises:
        ValueError: if it is damaged, or its values are Python's objects.
    """
    file = io.BytesIO(data)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
    except Exception as error:  # a header is a Python literal, and what is no such thing raises many kinds
        raise ValueError(f"{name}: no array ({error})") from None
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"{name}: not the array that its header tells of")
    return np.load(io.BytesIO(data), allow_pickle=False)


class ShardWriter:
    """Writes the tars of one split; use it as a context manager.

    Args:
        folder: where the tars go, as ``<split>-000000.tar`` and on.
        split: train, valid or test.
        per_shard: samples a tar at most.

    A tar appears under its name only when it is complete. `shards` holds the index's entries once the writer
    is closed.
    """

    def __init__(self, folder: str | Path, split: str, per_shard: int) -> None:
        if split not in SPLITS or per_shard < 1:
            raise ValueError(f"bad split {split!r} or per_shard {per_shard}")
        self.folder, self.split, self.per_shard = Path(folder), split, per_shard
        self.shards: list[dict[str, Any]] = []
        self.folder.mkdir(parents=True, exist_ok=True)
        self._keys: set[str] = set()
        self._tar: tarfile.TarFile | None = None
        self._samples = 0

    def __enter__(self) -> Self:
        """Start writing."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Finish the open tar, or throw it away after an error."""
        if kind is None:
            self.close()
        elif self._tar is not None:
            with suppress(OSError):  # of a full disk once more
                self._tar.close()
            temporary_name(self._path).unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.split}-{len(self.shards):06d}.tar"

    def write(self, key: str, members: Mapping[str, Any]) -> None:
        """Add one sample.

        Args:
            key: letters, digits, ``_`` and ``-``; new in this split.
            members: for example ``{"json": {...}, "0.png": b"..."}``.

        Raises:
            ValueError: for a key that is malformed or was used before, or a sample without members.
        """
        if not KEY.fullmatch(key) or key in self._keys or not members:
            raise ValueError(f"bad or repeated key, or no members: {key!r}")
        self._keys.add(key)
        encoded = {name: encode_member(name, value) for name, value in sorted(members.items())}
        if self._tar is None:
            self._tar = tarfile.open(temporary_name(self._path), "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        with naming(self._path):
            for name, data in encoded.items():
                info = tarfile.TarInfo(f"{key}.{name}")  # mtime, uid and gid are 0, mode 0644
                info.size = len(data)
                self._tar.addfile(info, io.BytesIO(data))
        self._samples += 1
        if self._samples == self.per_shard:
            self.close()

    def close(self) -> None:
        """Finish the tar that is open, if one is."""
        if self._tar is None:
            return
        path = self._path
        with naming(path):
            self._tar.close()
            digest = sha256_file(temporary_name(path))
            put_in_place(temporary_name(path), path)
        self.shards.append({"file": path.name, "samples": self._samples, "sha256": digest})
        self._tar, self._samples = None, 0


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
    path, stage = Path(folder) / INDEX, stage_of(folder)
    index = read_json(path, stage)
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
        raise UserError(f"{path}: not an index of shards; run `dvc repro --force {stage}`") from None
    return index


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
