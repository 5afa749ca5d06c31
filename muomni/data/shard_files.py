"""Shards opened for reading at any place, on this machine or at an address, each compared with the index's hash.

A shard that lies elsewhere is copied to this machine as a whole before it is read: then its hash can be compared, and
any server will do, also one that cannot read from the middle of a file.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tarfile
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from muomni.data.files import naming, put_in_place, sha256_file, temporary_name
from muomni.data.folders import Folder
from muomni.data.shard_format import INDEX, MEMBER, decode_member
from muomni.data.shards import checked_index, read_index, stage_of
from muomni.errors import UserError

LARGEST_INDEX = 1 << 28  # bytes
CHUNK = 1 << 20
TRIES, PAUSE = 3, 0.5  # of a shard that arrives whole but wrong; seconds before another try
OPENERS = 2  # threads


def is_address(where: str | Path) -> bool:
    """Whether shards lie at an address such as ``s3://bucket/mels`` and not in a folder of this machine."""
    return "://" in str(where) and not str(where).startswith("file://")


class OpenShard:
    """A checked tar, and where in it each sample's members are.

    Args:
        file: the tar; it stays open as long as the shard is used.
        samples: how many it must hold.

    Raises:
        ValueError: if it holds something else.
        tarfile.TarError: if it is no tar, or damaged.
    """

    def __init__(self, file: IO[bytes], samples: int) -> None:
        self.file, self.keys = file, list[str]()
        self.members: list[dict[str, tuple[int, int]]] = []  # name: offset and size
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if not member.isreg() or member.issparse() or not MEMBER.fullmatch(member.name):
                    raise ValueError(f"{member.name[:80]!r} is no file that belongs into a shard, or has a bad name")
                key, _, name = member.name.partition(".")
                if not self.keys or self.keys[-1] != key:
                    self.keys.append(key)
                    self.members.append({})
                self.members[-1][name] = (member.offset_data, member.size)
        if len(self.keys) != samples:
            raise ValueError(f"holds {len(self.keys)} samples, {INDEX} says {samples}")

    def bytes_of(self, number: int) -> int:
        """Size of a sample's members together."""
        return sum(size for _, size in self.members[number].values())

    def read(self, number: int, only: Collection[str] | None = None) -> dict[str, Any]:
        """A sample: ``__key__`` and the decoded members, all or some.

        Raises:
            ValueError: if a member cannot be decoded.
        """
        sample: dict[str, Any] = {"__key__": self.keys[number]}
        for name, (offset, size) in self.members[number].items():
            if only is None or name in only:
                sample[name] = decode_member(name, os.pread(self.file.fileno(), size, offset))
        return sample


class ShardFiles:
    """The shards of one split, opened when they are needed and ahead of that, a few at a time.

    Args:
        where: a folder, or an address: ``s3://bucket/mels``, ``http://host/mels``.
        split: train, valid or test.
        keep: how many stay open.
        cache: folder for copies of shards that lie elsewhere, shared by the processes of a machine; None: each
            process has copies of its own, which nobody sees.
        cache_bytes: what the cache may hold; the copies that were not used for longest go first.
        timeout: seconds without an answer after which a server counts as silent.

    Raises:
        UserError: if the index is missing or damaged, or the split is empty.
    """

    def __init__(
        self,
        where: str | Path,
        split: str,
        keep: int,
        cache: str | Path | None = None,
        cache_bytes: float = 20e9,
        timeout: float = 30.0,
    ) -> None:
        self.where, self.keep = str(where), keep
        self.cache, self.cache_bytes = None if cache is None else Path(cache), cache_bytes
        self.folder = Folder(self.where, "shards", timeout) if is_address(where) else None
        self.path = Path(self.where.removeprefix("file://"))
        if self.folder is None:
            self.again = f"run `dvc repro --force {stage_of(self.path)}`"
            index = read_index(self.path)
        else:
            self.again = "put the shards there again"
            index = self._remote_index(self.folder)
        splits = index["splits"]
        if split not in splits or splits[split]["samples"] == 0:
            raise UserError(f"{self.where}/{INDEX}: split '{split}' is empty")
        self.entries: Sequence[dict[str, Any]] = splits[split]["shards"]
        self._checked: dict[int, tuple[int, int, int]] = {}
        self._open: OrderedDict[int, Future[OpenShard]] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(OPENERS, thread_name_prefix="shards")

    def _remote_index(self, folder: Folder) -> dict[str, Any]:
        try:
            index = json.loads(folder.read(INDEX, LARGEST_INDEX))
        except (ValueError, RecursionError) as error:  # not there, or no JSON
            raise UserError(f"{self.where}/{INDEX}: {' '.join(str(error).split())}; {self.again}") from None
        return checked_index(index, f"{self.where}/{INDEX}", self.again)

    def prepare(self, shard: int) -> Future[OpenShard]:
        """Have a shard opened in the background. Of more than `keep`, those that were not used for longest close."""
        with self._lock:
            if shard not in self._open:
                self._open[shard] = self._pool.submit(self._opened, shard)
            self._open.move_to_end(shard)
            while len(self._open) > self.keep:
                _, old = self._open.popitem(last=False)
                old.add_done_callback(_close)
            return self._open[shard]

    def get(self, shard: int) -> OpenShard:
        """An open shard.

        Raises:
            UserError: if it is missing, changed or cut off, or the server does not answer, after several tries.
        """
        future = self.prepare(shard)
        try:
            return future.result()
        except UserError:
            with self._lock:
                self._open.pop(shard, None)  # another call tries again
            raise

    def samples(self, only: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
        """All samples in the order they were written; raises UserError as `read` does."""
        for shard, entry in enumerate(self.entries):
            for number in range(entry["samples"]):
                yield self.read(shard, number, only)

    def read(self, shard: int, number: int, only: Collection[str] | None = None) -> dict[str, Any]:
        """A sample of a shard, or some members; raises UserError as `get` does, and if they cannot be decoded."""
        try:
            return self.get(shard).read(number, only)
        except (ValueError, OSError) as error:
            raise self._bad(shard, f"sample {number} cannot be read ({' '.join(str(error).split())})") from None

    def close(self) -> None:
        """Close all shards and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for future in self._open.values():
            _close(future)
        self._open.clear()

    def _bad(self, shard: int, what: str) -> UserError:
        return UserError(f"{self.where}/{self.entries[shard]['file']}: {what}; {self.again}")

    def _opened(self, shard: int) -> OpenShard:
        file = self._local(shard) if self.folder is None else self._fetched(self.folder, shard)
        try:
            return OpenShard(file, self.entries[shard]["samples"])
        except (ValueError, EOFError, OSError, tarfile.TarError) as error:
            file.close()
            raise self._bad(shard, " ".join(str(error).split())) from None

    def _local(self, shard: int) -> IO[bytes]:
        """A shard of this machine; hashed when it is first opened and whenever it was changed since."""
        entry = self.entries[shard]
        try:
            file = (self.path / entry["file"]).open("rb")
        except OSError as error:
            raise self._bad(shard, f"shard cannot be read ({error.strerror})") from None
        found = os.fstat(file.fileno())
        mark = (found.st_ino, found.st_size, found.st_mtime_ns)
        if self._checked.get(shard) != mark:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                file.close()
                raise self._bad(shard, f"shard was changed or cut off (its sha256 differs from {INDEX})")
            self._checked[shard] = mark
        return file

    def _fetched(self, folder: Folder, shard: int) -> IO[bytes]:
        """A shard from elsewhere, by the cache if there is one."""
        if self.cache is None:
            return self._download(folder, shard)
        self.cache.mkdir(parents=True, exist_ok=True)
        path = self.cache / f"{self.entries[shard]['sha256']}.tar"
        # One process of a machine copies, the others wait for it.
        with (self.cache / f"{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.is_file() and sha256_file(path) == path.stem:
                os.utime(path)
                return path.open("rb")
            temporary = temporary_name(path)
            with self._download(folder, shard) as copy, naming(path), temporary.open("wb") as file:
                shutil.copyfileobj(copy, file, CHUNK)
            put_in_place(temporary, path)
            made = path.open("rb")
        self._make_room(path)
        return made

    def _download(self, folder: Folder, shard: int) -> IO[bytes]:
        """A copy without a name, whose hash is right."""
        entry = self.entries[shard]
        for attempt in range(TRIES):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                with folder.open(entry["file"]) as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"]:  # type: ignore[arg-type]
                        file.seek(0)
                        return os.fdopen(os.dup(file.fileno()), "rb")  # the copy has no name and lasts as long as this
                    last = f"shard is not the one of {INDEX}, or was cut off (its sha256 differs)"
            except ValueError as error:  # that there is none, which a server of many machines may say too early
                last = str(error)
            except UserError as error:  # no answer, after several tries
                what = str(error).rpartition(": ")[2]
                raise UserError(f"{self.where}/{entry['file']}: cannot be fetched: {what}") from None
        raise self._bad(shard, f"{last}, {TRIES} times in a row")

    def _make_room(self, newest: Path) -> None:
        """Remove old copies. Who has one open goes on reading it."""
        assert self.cache is not None
        copies = sorted(self.cache.glob("*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in copies:
            total += path.stat().st_size
            if total > self.cache_bytes and path != newest:
                path.unlink(missing_ok=True)


def _close(future: "Future[OpenShard]") -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().file.close()


def split_bytes(where: str | Path, split: str) -> int:
    """Bytes of a split's shards, by the index where it has them, else by the files; 0 for what is not there."""
    index = read_index(where)
    shards = index["splits"].get(split, {"shards": []})["shards"]
    sizes = (shard.get("bytes") or _size(Path(where) / shard["file"]) for shard in shards)
    return sum(sizes)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
