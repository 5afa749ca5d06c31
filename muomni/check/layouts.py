"""Which kinds of data a folder holds, by the names of its files."""

import re
from dataclasses import dataclass

from muomni.data.folders import Folder
from muomni.data.speech_files import MOST_TABLE
from muomni.errors import UserError

SPEECH = ("folder", "ljspeech", "librispeech", "common_voice", "manifest")
TEXT = ("files", "jsonl", "parquet")
PICTURES = ("folder",)
# A name for each reader on the command line: speech and pictures both have one that is called folder.
KINDS = {
    **{kind: ("speech", kind) for kind in SPEECH if kind != "folder"},
    "recordings": ("speech", "folder"),
    **{kind: ("text", kind) for kind in TEXT},
    "pictures": ("pictures", "folder"),
}
TABLES = {"captions.jsonl", "metadata.jsonl", "manifest.jsonl"}  # JSON lines that are no prose


@dataclass(frozen=True)
class Found:
    """A source: text, speech or pictures, how it is read, and its address."""

    what: str
    source: str
    address: str


def found_in(address: str) -> list[Found]:
    """The sources in a folder; if it has none itself, those in the folders in it.

    Raises:
        UserError: if there is no such folder, or nothing in it that can be learned from.
    """
    folder = Folder(address, "muomni data")
    if folder.local is not None and folder.local.is_file():
        raise UserError(f"{address}: is a file; name its folder, or use --source with --path")
    names = folder.files()
    found = _here(folder, names, folder.address)
    if not found:
        for inner in sorted({name.split("/")[0] for name in names if "/" in name}):
            mine = [name.partition("/")[2] for name in names if name.startswith(f"{inner}/")]
            below = f"{folder.address}/{inner}"
            found += _here(Folder(below, "muomni data"), mine, below)
    if not found:
        raise UserError(
            f"{address}: nothing that can be learned from was found; say what it is with --source and --path "
            f"({', '.join(KINDS)})"
        )
    return found


def _here(folder: Folder, names: list[str], address: str) -> list[Found]:
    top = {name for name in names if "/" not in name}
    found = []
    if any(re.fullmatch(r"([^/]+/){2,3}[^/]+\.trans\.txt", name) for name in names):
        return [Found("speech", "librispeech", address)]
    if top & {"train.tsv", "validated.tsv"} and any(name.startswith("clips/") for name in names):
        return [Found("speech", "common_voice", address)]
    if "metadata.csv" in top and any(name.startswith("wavs/") for name in names):
        barred = b"|" in folder.read("metadata.csv", MOST_TABLE).split(b"\n", 1)[0]
        return [Found("speech", "ljspeech" if barred else "folder", address)]
    if top & {"metadata.csv", "metadata.jsonl"}:
        found.append(Found("speech", "folder", address))
    elif top & {"manifest.csv", "manifest.tsv", "manifest.jsonl"}:
        found.append(Found("speech", "manifest", address))
    if "captions.jsonl" in top:
        found.append(Found("pictures", "folder", address))
    if found:
        return found
    prose = [n for n in names if n.split("/")[-1] not in TABLES and not re.match(r"licen[cs]e|copying|readme", n, re.I)]
    for source, ends in (("files", (".txt", ".jsonl")), ("jsonl", (".ndjson",)), ("parquet", (".parquet",))):
        if any("/" not in name and name.lower().endswith(ends) for name in prose):
            found.append(Found("text", source, address))
    return found
