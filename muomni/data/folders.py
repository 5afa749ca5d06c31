"""Folders of data at an address: a plain path, ``file://``, ``s3://``, ``http://`` or ``https://`` (fsspec).

Names are relative to the folder, with ``/`` between the parts, and always in the same order. A remote file is copied to
a temporary one before it is read: any server will do, also one that cannot jump within a file, and what is read is what
was hashed. Credentials come from the environment alone (for S3 what boto reads: ``AWS_ACCESS_KEY_ID``, ``AWS_PROFILE``,
``AWS_ENDPOINT_URL`` ...); an address with a user, a password or a query is refused, as addresses go into manifests.

Two kinds of errors: `ValueError` for one file, which the caller sets aside, and `UserError` for the whole folder. A
server that stops answering is of the second kind: else a bad hour of a network would look like bad data.
"""

import hashlib
import os
import re
import tempfile
import time
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import quote, unquote

from muomni.errors import UserError, one_line, shortened

Result = TypeVar("Result")
LARGEST = 50_000_000_000  # bytes of a file
MOST_FILES = 5_000_000  # in one folder
DEEPEST = 20  # folders in folders, of a server whose pages may lead anywhere
CHUNK = 4 << 20
TRIES, PAUSE = 3, 1.0  # seconds before the second try, twice as long before the third


class TooLarge(ValueError):
    """A file has more bytes than are read."""


def in_order(names: Iterable[str]) -> list[str]:
    """Names sorted as paths are: part by part."""
    return sorted(names, key=lambda name: name.split("/"))


class Folder:
    """A folder of somebody's data.

    Args:
        address: where it is.
        key: what messages call it, for example ``text.path``.
        timeout: seconds without an answer after which a server counts as silent.

    Raises:
        UserError: for an address that cannot be read here, or has a secret in it.
    """

    def __init__(self, address: str, key: str = "path", timeout: float = 30.0) -> None:
        self.key, self.timeout = key, timeout
        self._listed: dict[str, dict[str, Any]] = {}  # what the list of a bucket tells of each file
        scheme, mark, rest = address.partition("://")
        self.scheme = scheme.lower() if mark else "file"
        if self.scheme != "file" and ("@" in rest.partition("/")[0] or "?" in rest or "#" in rest):
            # Not quoted: what is in it may be a secret.
            raise UserError(f"{key}: the address has a user or a query in it; keep credentials in the environment")
        self.address = address.rstrip("/") or address
        if self.scheme not in ("file", "s3", "http", "https"):
            raise self._error(f"{scheme}:// is not read here; give a path, file://, s3://, http:// or https://")
        if not address or (self.scheme != "file" and not rest.strip("/")):
            raise self._error("no folder is named")
        self._root = {"file": rest if mark else address, "s3": rest.strip("/")}.get(self.scheme, self.address)

    @property
    def local(self) -> Path | None:
        """The folder on this machine, or None if it is elsewhere."""
        return Path(self._root) if self.scheme == "file" else None

    def files(self, suffixes: Sequence[str] = ()) -> list[str]:
        """Names of the files below the folder, sorted; hidden ones are left out.

        Args:
            suffixes: endings that count, for example ``(".jpg", ".png")``, in either case; all if there are none.

        Raises:
            UserError: if there is no such folder, no right to look into it, too many files, or no answer.
        """
        names = self._local_names(self.local) if self.local is not None else self._names
        ends = tuple(suffix.lower() for suffix in suffixes)
        return [name for name in names if not ends or name.lower().endswith(ends)]

    def exists(self, name: str) -> bool:
        """Whether there is a file of that name."""
        with suppress(ValueError):
            return bool(self.about(name))
        return False

    def about(self, name: str) -> dict[str, Any]:
        """What tells one state of a file from another: ``size`` in bytes or None, and ``etag`` or ``mtime``.

        Raises:
            ValueError: if there is no such file or no right to it.
            UserError: if there is no answer.
        """
        if self.local is not None:
            found = self._local_path(name).stat()
            return {"size": found.st_size, "mtime": str(found.st_mtime_ns)}
        info = self._asked(name, lambda: self._info(name))
        tag = str(info.get("ETag") or "").strip('"')
        when = str(info.get("LastModified") or info.get("Last-Modified") or "")
        return {"size": info.get("size"), **({"etag": tag} if tag else {"mtime": when})}

    @contextmanager
    def open(self, name: str, most_bytes: int = LARGEST) -> Iterator[IO[bytes]]:
        """A file to read bytes from, at any place of it.

        Raises:
            ValueError: if it is missing, outside the folder or unreadable.
            TooLarge: a `ValueError` too, if it has more than `most_bytes`.
            UserError: if there is no answer.
        """
        if self.local is None:
            with tempfile.TemporaryFile(prefix="muomni-") as copy:
                self._asked(name, lambda: self._copy(name, copy, most_bytes))
                copy.seek(0)
                yield copy
            return
        path = self._local_path(name)
        try:
            file = path.open("rb")
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from None
        with file:
            if os.fstat(file.fileno()).st_size > most_bytes:
                raise TooLarge(f"more than {most_bytes:,} bytes")
            yield file

    def read(self, name: str, most_bytes: int) -> bytes:
        """A whole file; raises as `open` does."""
        with self.open(name, most_bytes) as file:
            return file.read()

    def sha256(self, name: str, most_bytes: int = LARGEST) -> str:
        """SHA-256 of a file; raises as `open` does."""
        with self.open(name, most_bytes) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]

    def state(self, names: Sequence[str]) -> str:
        """SHA-256 over names and contents; of a remote folder over names, sizes, and etags or times of change."""
        digest = hashlib.sha256()
        for name in sorted(names):
            try:
                about = self.sha256(name) if self.local is not None else str(sorted(self.about(name).items()))
            except ValueError:
                about = ""
            digest.update(f"{name}\0{about}\n".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def _error(self, what: object) -> UserError:
        return UserError(f"{self.key}: {shortened(one_line(self.address), 200)}: {what}")

    def _local_names(self, folder: Path) -> list[str]:
        if not folder.is_dir():
            raise self._error("no such folder")
        found = []
        for above, folders, files in os.walk(folder, onerror=self._refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [(Path(above) / name).relative_to(folder).as_posix() for name in files if name[0] != "."]
            self._count(found)
        return in_order(found)

    def _refuse(self, error: OSError) -> None:
        raise self._error(f"cannot be read: {error.strerror}")

    def _count(self, found: Collection[str]) -> None:
        if len(found) > MOST_FILES:
            raise self._error(f"more than {MOST_FILES:,} files; split it into folders and name them in a mixture")

    def spelled(self, name: str) -> str:
        """A name as the file's system spells it: some have letters and their accents apart, which look the same."""
        if self.local is None or name.isascii() or (self.local / name).exists():
            return name
        return self._composed.get(unicodedata.normalize("NFC", name), name)

    @cached_property
    def _composed(self) -> dict[str, str]:
        """Names of files by their composed form, where that is another."""
        names = {unicodedata.normalize("NFC", name): name for name in self.files()}
        return {composed: name for composed, name in names.items() if composed != name}

    def _local_path(self, name: str) -> Path:
        """Where a file is; raises ValueError if there is none or it is not in the folder."""
        folder = Path(self._root)
        try:
            name = self.spelled(name)
            path = (folder / name).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise ValueError(
                    "outside the folder" if not (folder / name).is_symlink() else "a link that leads out of the folder"
                )
            if not path.is_file():
                raise ValueError("no such file")
        except (OSError, RuntimeError) as error:  # too long a name, a loop of links
            raise ValueError(f"no such file: {getattr(error, 'strerror', None) or error}") from None
        return path

    @cached_property
    def _system(self) -> Any:
        """The file system of fsspec."""
        try:
            import aiohttp
            import fsspec  # type: ignore[import-untyped]
            import s3fs  # type: ignore[import-untyped]  # noqa: F401
        except ImportError:
            raise self._error("needs fsspec, s3fs and aiohttp; run `pip install 'muomni[cluster]'`") from None
        connect = min(10.0, self.timeout)
        if self.scheme == "s3":
            wait = {"connect_timeout": connect, "read_timeout": self.timeout}
            options: dict[str, Any] = {"config_kwargs": wait | {"retries": {"max_attempts": 1}}}
        else:
            limits = aiohttp.ClientTimeout(None, sock_connect=connect, sock_read=self.timeout)
            # Names are quoted here, as a name may have any character.
            options = {"client_kwargs": {"timeout": limits}, "encoded": True}
        # Neither an instance nor a listing of before: both would hide what has changed since.
        system = fsspec.filesystem(self.scheme, use_listings_cache=False, skip_instance_cache=True, **options)
        system.retries = 1  # s3fs has tries of its own, which would multiply those made here
        return system

    def _remote(self, name: str) -> str:
        """The address of a file; raises ValueError for a name that leads out of the folder."""
        if any(part in ("", ".", "..") for part in name.split("/")):
            raise ValueError("outside the folder")
        return f"{self._root}/{quote(name) if self.scheme.startswith('http') else name}"

    @cached_property
    def _names(self) -> list[str]:
        """All names of a remote folder, sorted."""
        try:
            found = self._patiently(self._listed_pages if self.scheme.startswith("http") else self._listed_keys)
        except FileNotFoundError:
            raise self._error("no such bucket or folder") from None
        except PermissionError:
            raise self._error("no rights to read it; check the credentials in the environment") from None
        return in_order(name for name in found if not any(part.startswith(".") for part in name.split("/")))

    def _listed_keys(self) -> list[str]:
        start, found = f"{self._root}/", self._listed
        for above, _, files in self._system.walk(self._root, on_error="raise", detail=True):
            found |= {f"{above}/{name}".removeprefix(start): info for name, info in files.items() if name}
            self._count(found)
        if not found and not self._system.exists(self._root):
            raise FileNotFoundError(self._root)
        return list(found)

    def _listed_pages(self) -> list[str]:
        """Names from the pages that a web server makes of its folders; links to elsewhere are left alone."""
        start, found, open_pages, seen = f"{self._root}/", set(), [f"{self._root}/"], set()
        while open_pages:
            page = open_pages.pop()
            for link in self._system.ls(page, detail=False):
                name = unquote(re.split(r"[?#]", link)[0].removeprefix(start))
                if link == page or not link.startswith(start) or any(p in (".", "..") for p in name.split("/")):
                    continue
                if not name.endswith("/"):
                    found.add(name)
                elif link not in seen and name.count("/") <= DEEPEST:
                    seen.add(link)
                    open_pages.append(link)
            self._count(found)
        return list(found)

    def _info(self, name: str) -> dict[str, Any]:
        info: dict[str, Any] = self._listed.get(name) or self._system.info(self._remote(name))
        if info.get("type") == "directory" or str(info.get("url", "")).endswith("/"):
            raise FileNotFoundError(name)  # a folder: a web server leads from its name to its page
        return info

    def _copy(self, name: str, into: IO[bytes], most_bytes: int) -> None:
        into.seek(0)
        into.truncate()
        if (self._info(name).get("size") or 0) > most_bytes:
            raise TooLarge(f"more than {most_bytes:,} bytes")
        plain = {"block_size": 0} if self.scheme.startswith("http") else {"cache_type": "readahead"}
        with self._system.open(self._remote(name), "rb", **plain) as file:
            while chunk := file.read(CHUNK):
                into.write(chunk)
                if into.tell() > most_bytes:
                    raise TooLarge(f"more than {most_bytes:,} bytes")

    def _asked(self, name: str, ask: Callable[[], Result]) -> Result:
        """Ask about one file; what is wrong with it alone becomes a ValueError."""
        try:
            return self._patiently(ask)
        except FileNotFoundError:
            raise ValueError("no such file") from None
        except PermissionError:
            raise ValueError("no rights to read it") from None

    def _patiently(self, ask: Callable[[], Result]) -> Result:
        """Ask up to `TRIES` times; raises UserError if there is no answer, and what says that it is not there."""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(PAUSE * 2 ** (attempt - 1))
            try:
                return ask()
            except (ValueError, PermissionError, UserError):
                raise
            except Exception as error:  # of aiohttp, botocore, fsspec: each has classes of its own
                # fsspec's web folders say that a file is missing whatever the server's answer was.
                last = (error.__cause__ or error) if self.scheme.startswith("http") else error
                status = getattr(last, "status", None)
                if isinstance(last, FileNotFoundError) or status in (404, 410):
                    raise FileNotFoundError from None
                if status in (401, 403):
                    raise PermissionError from None
        raise self._error(f"no answer after {TRIES} tries ({type(last).__name__}); try again later") from None
