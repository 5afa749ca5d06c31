"""The folder that a corpus of speech lies in, at any address, and the sounds in it."""

import posixpath
from functools import cached_property, lru_cache
from pathlib import Path

from muomni.data.folders import Folder
from muomni.errors import UserError
from muomni.sound import MAX_FILE_BYTES

KEY = "speech.path"
TABLES = (".csv", ".tsv", ".jsonl")
MOST_TABLE = 4_000_000_000  # bytes of a table


class SpeechFolder:
    """A folder, or a table in one that lists the others.

    Args:
        address: of either, as `muomni.data.folders` has it.

    Attributes:
        file: name of the table, if it was one.

    Raises:
        UserError: if there is neither.
    """

    def __init__(self, address: str) -> None:
        place, _, name = address.rpartition("/")
        remote = "://" in address and not address.startswith("file://")
        self.file = name if name.lower().endswith(TABLES) and (remote or Path(address).is_file()) else ""
        self.folder = Folder((place or ".") if self.file else address, KEY)
        if self.folder.local is not None and not self.folder.local.is_dir():
            raise UserError(f"{address}: no such folder; set {KEY} in params.yaml to your recordings")

    def __str__(self) -> str:
        """Its address, for messages."""
        return self.folder.address

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return self.folder.exists(name)

    def read(self, name: str) -> bytes:
        """A table's bytes. Raises ValueError if it cannot be read."""
        return self.folder.read(name, MOST_TABLE)

    @cached_property
    def _places(self) -> dict[str, list[str]]:
        """Names of files by the folder that they are in."""
        found = dict[str, list[str]]()
        for name in self.folder.files():
            place, _, last = name.rpartition("/")
            found.setdefault(place, []).append(last)
        return found

    def names(self, place: str = "") -> list[str]:
        """Names of the files in a folder of it, sorted; none if there is no such folder."""
        return self._places.get(place, [])

    def below(self, *ends: str) -> list[str]:
        """Names, relative to it, of all files below that end so, sorted."""
        return self.folder.files(ends)

    def inside(self, name: str) -> str | None:
        """The address of a file that a corpus names, if it is in the folder.

        Raises:
            ValueError, OSError, RuntimeError: for what cannot be a file's name, or a loop of links.
        """
        local = self.folder.local
        if local is not None:
            path = (local / self.folder.spelled(name)).resolve()
            return str(path) if local.resolve() in path.parents else None
        name = posixpath.normpath(name)
        return None if name.startswith(("/", "..")) or name == "." else f"{self.folder.address}/{name}"


@lru_cache(maxsize=8)
def _folder(address: str) -> Folder:
    return Folder(address, KEY)


def read_sound(address: str) -> str | bytes:
    """What `muomni.sound.load_audio` takes of an address that `SpeechFolder.inside` gave.

    Raises:
        UserError: if it is on a server that does not have it, or does not answer.
    """
    place, _, name = address.rpartition("/")
    if "://" not in place:
        return address
    try:
        return _folder(place).read(name, MAX_FILE_BYTES)
    except ValueError as error:
        raise UserError(f"{address}: {error}") from None
