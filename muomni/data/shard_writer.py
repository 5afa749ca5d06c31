"""Writes shards: tars whose bytes depend on the samples and the sizes asked for only."""

import hashlib
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from muomni.data.files import naming, put_in_place, temporary_name
from muomni.data.shard_format import SPLITS, encode_sample, end_of_tar


class ShardWriter:
    """Writes the tars of one split; use it as a context manager.

    Args:
        folder: where the tars go, as ``<split>-000000.tar`` and on.
        split: train, valid or test.
        per_shard: samples a tar at most.
        max_bytes: bytes of samples a tar at most, without the tar's end; a larger sample has a tar of its own.
            None: no limit.

    A tar appears under its name only when it is complete. `shards` holds the index's entries once the writer
    is closed; with `max_bytes` they also say how large each tar is.
    """

    def __init__(self, folder: str | Path, split: str, per_shard: int, max_bytes: int | None = None) -> None:
        if split not in SPLITS or per_shard < 1 or (max_bytes is not None and max_bytes < 1):
            raise ValueError(f"bad split {split!r}, per_shard {per_shard} or max_bytes {max_bytes}")
        self.folder, self.split, self.per_shard, self.max_bytes = Path(folder), split, per_shard, max_bytes
        self.shards: list[dict[str, Any]] = []
        self.folder.mkdir(parents=True, exist_ok=True)
        self._last = ""  # the greatest key so far
        self._here: list[str] = []  # keys of the open tar
        self._keys: set[str] | None = None  # all keys, once one came out of order: who comes in order is new
        self._tar: IO[bytes] | None = None
        self._samples = self._bytes = 0

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
        self.append(key, encode_sample(key, members))

    def append(self, key: str, blocks: bytes) -> None:
        """Add one sample that `encode_sample` made into blocks, perhaps in another process.

        Raises:
            ValueError: for a key that was used before.
        """
        if key <= self._last and self._keys is None:
            self._keys = self._written()
        if self._keys is not None:
            if key in self._keys:
                raise ValueError(f"repeated key: {key!r}")
            self._keys.add(key)
        self._last = max(key, self._last)
        if self._samples and self.max_bytes is not None and self._bytes + len(blocks) > self.max_bytes:
            self.close()
        if self._tar is None:
            self._tar = temporary_name(self._path).open("wb")
            self._digest = hashlib.sha256()
        self._put(blocks)
        self._here.append(key)
        self._samples += 1
        if self._samples == self.per_shard:
            self.close()

    def _written(self) -> set[str]:
        """The keys of all samples so far, from the tars: a billion do not fit into memory, and seldom have to."""
        found = set(self._here)
        for entry in self.shards:
            with tarfile.open(self.folder / entry["file"], "r:") as tar:
                found |= {member.name.partition(".")[0] for member in tar}
        return found

    def _put(self, data: bytes) -> None:
        assert self._tar is not None
        with naming(self._path):
            self._tar.write(data)
        self._digest.update(data)  # what was meant to be written: a disk that wrote something else is found out
        self._bytes += len(data)

    def close(self) -> None:
        """Finish the tar that is open, if one is."""
        if self._tar is None:
            return
        path = self._path
        self._put(end_of_tar(self._bytes))
        with naming(path):
            self._tar.close()
            put_in_place(temporary_name(path), path)
        entry: dict[str, Any] = {"file": path.name, "samples": self._samples, "sha256": self._digest.hexdigest()}
        if self.max_bytes is not None:
            entry["bytes"] = self._bytes
        self.shards.append(entry)
        self._tar, self._samples, self._bytes, self._here = None, 0, 0, []
