"""Mixtures: several sources of one kind of data, named by a YAML file, and how often training meets each."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import Field

from muomni.config import Loader, Section, parse
from muomni.data.folders import Folder
from muomni.errors import UserError

LARGEST = 1_000_000  # bytes of the file that names the sources


class Part(Section):
    """What every source of a mixture has; each kind of data adds its own ``source`` and options."""

    path: str = Field(default="", description="its folder: a path, file://, s3://, http:// or https://")
    weight: float = Field(default=1.0, gt=0, le=1000, description="how often training meets each of its items")
    name: str = Field(default="", max_length=80, pattern=r"^[A-Za-z0-9_.-]*$", description="in manifests; else source")
    licence: str = Field(default="your own", max_length=200, description="under which its items may be used")


P = TypeVar("P", bound=Part)


def read_mixture(address: str, part: type[P], key: str) -> list[P]:
    """The sources that a YAML file lists; their paths are as in ``params.yaml``.

    Args:
        address: of the file, as a folder's may be.
        part: the section that an entry of the list is.
        key: what messages call it, for example ``text.path``.

    Raises:
        UserError: if the file is missing, is no list of sources, or two sources have one name.
    """
    try:
        data = _file(address, key)
        rows = Loader(data.decode("utf-8")).get_single_data()
    except UserError:
        raise
    except Exception as error:  # PyYAML's own, and what its readers of numbers and dates raise on odd ones
        raise UserError(f"{key}: {address}: not a file of sources ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{key}: {address}: expected a list of sources, each with source and path")
    parts = [parse(part, row, f"{address}: source {number}") for number, row in enumerate(rows, 1)]
    parts = [p.model_copy(update={"name": p.name or f"{p.source}-{i}"}) for i, p in enumerate(parts, 1)]  # type: ignore[attr-defined]
    names = [p.name for p in parts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{key}: {address}: two sources have the name '{twice[0]}'; give each its own")
    return parts


def _file(address: str, key: str) -> bytes:
    above, _, name = address.rpartition("/")
    return Folder(above or ("/" if address.startswith("/") else "."), key).read(name, LARGEST)


def state_of_mixture(address: str, key: str) -> str:
    """SHA-256 of the file that lists the sources, or nothing if it cannot be read."""
    try:
        return hashlib.sha256(_file(address, key)).hexdigest()
    except ValueError:
        return ""


def times(ids: Iterable[str], weight: float, seed: int) -> dict[str, int]:
    """How often training meets each item of a source: on average `weight` times.

    All of them as often as the weight's whole part says; of the rest as many once more as its fraction says, those
    whose hashes come first.
    """
    ids = list(ids)
    whole = math.floor(weight)
    more = round((weight - whole) * len(ids))
    ranked = sorted(ids, key=lambda name: hashlib.blake2b(f"{seed}:weight:{name}".encode(), digest_size=8).digest())
    return dict.fromkeys(ids, whole) | dict.fromkeys(ranked[:more], whole + 1)


@dataclass
class Origin:
    """What a source gave: for the manifest, which tells counts and licences by it, and in which state it was read."""

    name: str
    source: str
    address: str
    licence: str
    weight: float = 1.0
    files: int = 0
    state: str = ""
    items: int = 0
    bad: int = 0

    def saw(self, folder: Folder, names: list[str]) -> None:
        """Keep the state of the files that are read."""
        self.address, self.files, self.state = folder.address, len(names), folder.state(names)

    def row(self) -> dict[str, Any]:
        """The entry of the manifest."""
        return dict(vars(self))

    def licence_row(self, what: str) -> dict[str, str]:
        """The manifest's entry among its licences, of the form that `muomni.data.files.licence` has."""
        return {"package": self.address or self.name, "version": "", "licence": self.licence, "what": what}


def told(source: str, address: str, origins: Iterable[Origin]) -> dict[str, Any]:
    """What a manifest tells of sources of one's own: ``origins``, and of a mixture the state of its file."""
    more: dict[str, Any] = {"origins": [origin.row() for origin in origins]}
    if source == "mixture":
        more["mixture"] = {"address": address, "state": state_of_mixture(address, "path")}
    return more
