"""Which kinds of data a folder holds, by the names of its files."""

import json
import re
from dataclasses import dataclass

from muomni.data.folders import Folder
from muomni.data.own_conversations import LONGEST_LINE
from muomni.data.picture_entries import PICTURES as ENDS
from muomni.data.speech_files import MOST_TABLE
from muomni.errors import UserError

SPEECH = ("folder", "ljspeech", "librispeech", "common_voice", "manifest")
TEXT = ("files", "jsonl", "parquet")
PICTURES = ("csv", "sidecar", "coco", "webdataset")
NESTED = {("text", kind) for kind in TEXT} | {("pictures", "sidecar")}  # read the folders in theirs as well
DEEPEST = 2  # folders in folders that are looked into
# A name for each reader on the command line: speech and pictures both have one that is called folder, or mixture.
KINDS = {
    **{kind: ("speech", kind) for kind in SPEECH if kind != "folder"},
    "recordings": ("speech", "folder"),
    **{kind: ("text", kind) for kind in TEXT},
    "text-mixture": ("text", "mixture"),
    "pictures": ("pictures", "folder"),
    **{kind: ("pictures", kind) for kind in PICTURES},
    "pictures-mixture": ("pictures", "mixture"),
    "speech-mixture": ("speech", "mixture"),
    "conversations": ("conversations", "jsonl"),
    "conversations-mixture": ("conversations", "mixture"),
}
TABLES = {"captions.jsonl", "metadata.jsonl", "manifest.jsonl"}  # JSON lines that are no prose


@dataclass(frozen=True)
class Found:
    """A source: text, speech, pictures or conversations, how it is read, and its address."""

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
    found = _below(folder, folder.files(), folder.address, DEEPEST)
    if not found:
        raise UserError(
            f"{address}: nothing that can be learned from was found; say what it is with --source and --path "
            f"({', '.join(KINDS)})"
        )
    return found


def _below(folder: Folder, names: list[str], address: str, depth: int) -> list[Found]:
    """The sources in a folder itself, else those in the folders in it; of one kind in all of them it is one."""
    found = _here(folder, names, address)
    if found or not depth:
        return found
    inner = dict[str, list[str]]()
    for name in names:
        place, mark, rest = name.partition("/")
        if mark:
            inner.setdefault(place, []).append(rest)
    for place, mine in inner.items():
        below = f"{address}/{place}"
        found += _below(Folder(below, folder.key), mine, below, depth - 1)
    kinds = {(one.what, one.source) for one in found}
    return [Found(*kinds.pop(), address)] if len(kinds) == 1 and kinds <= NESTED else found


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
    if seen := _pictures(names, top):
        found.append(Found("pictures", seen, address))
    if found:
        return found
    if _talks(folder, top):
        return [Found("conversations", "jsonl", address)]
    prose = [n for n in names if n.split("/")[-1] not in TABLES and not re.match(r"licen[cs]e|copying|readme", n, re.I)]
    for source, ends in (("files", (".txt", ".jsonl")), ("jsonl", (".ndjson",)), ("parquet", (".parquet",))):
        if any("/" not in name and name.lower().endswith(ends) for name in prose):
            found.append(Found("text", source, address))
    return found


def _talks(folder: Folder, top: set[str]) -> bool:
    """Whether the first line of the first file of JSON lines is in the chat format."""
    for name in sorted(name for name in top - TABLES if name.lower().endswith((".jsonl", ".ndjson"))):
        try:
            with folder.open(name) as file:
                row = json.loads(file.readline(LONGEST_LINE))
        except (ValueError, RecursionError):
            continue
        return isinstance(row, dict) and isinstance(row.get("messages"), list)
    return False


def _pictures(names: list[str], top: set[str]) -> str:
    """The kind of pictures, if there are any that something is said of."""
    if "captions.jsonl" in top:
        return "folder"
    if "captions.csv" in top:
        return "csv"
    if any(name.startswith("annotations/captions_") and name.endswith(".json") for name in names):
        return "coco"
    if any(name.lower().endswith(".tar") for name in top):
        return "webdataset"
    stems = {name.rsplit(".", 1)[0] for name in top if name.lower().endswith(".txt")}
    shown = {name.rsplit(".", 1)[0] for name in top if name.lower().endswith(ENDS)}
    return "sidecar" if stems & shown else ""
