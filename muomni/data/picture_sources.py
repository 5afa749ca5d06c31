"""Readers of somebody's pictures: which files there are, and what is said of them, for each layout of a folder.

A picture has a name ("dog"), by which things are drawn and asked about, or captions, which are sentences about it.
"""

import csv
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Literal

from muomni.data.badsamples import BadSamples
from muomni.data.folders import Folder
from muomni.data.mixtures import Origin, Part
from muomni.data.picture_coco import coco_entries
from muomni.data.picture_entries import LONGEST_LINE, MOST_BYTES, MOST_LISTED, PICTURES, Entry
from muomni.errors import UserError

KINDS = ("folder", "csv", "sidecar", "coco", "webdataset")
CAPTIONS = {"folder": "captions.jsonl", "csv": "captions.csv"}


class PicturePart(Part):
    """A source of pictures in a mixture."""

    source: Literal["embedded", "packages", "folder", "csv", "sidecar", "coco", "webdataset"]


def entries(part: PicturePart, bad: BadSamples, origin: Origin) -> Iterator[Entry]:
    """The pictures of a source in a fixed order; what is wrong with the lists is set aside in `bad`.

    Raises:
        UserError: if the folder is not there or not of that layout.
    """
    folder = Folder(part.path, "images.path")
    readers = {"sidecar": _sidecar, "coco": coco_entries, "webdataset": _tars}
    if part.source in CAPTIONS:
        rows = _rows(folder, part.source, bad)
        listed = list(_merged(rows, folder))
        origin.saw(folder, sorted({CAPTIONS[part.source], *(entry.file for entry in listed)}))
        yield from listed
    else:
        names = folder.files()
        origin.saw(folder, names)
        yield from readers[part.source](folder, names, bad)


def _rows(folder: Folder, kind: str, bad: BadSamples) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Lines of the list of pictures, each with what messages call it."""
    listed = CAPTIONS[kind]
    try:
        data = folder.read(listed, MOST_LISTED)
    except ValueError as error:
        if str(error) != "no such file":
            raise UserError(f"images.path: {folder.address}/{listed}: {error}") from None
        columns = (
            "a line {'file': ..., 'name' or 'caption': ...} a picture"
            if kind == "folder"
            else ("columns file and caption (or name)")
        )
        raise UserError(f"images.path: {folder.address}/{listed} is missing; write {columns}") from None
    yield from (_json_rows if kind == "folder" else _csv_rows)(data, listed, bad)


def _json_rows(data: bytes, listed: str, bad: BadSamples) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(data.splitlines(), 1):
        item = f"{listed}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            said = row.get("name", row.get("caption"))
            if not isinstance(row["file"], str) or not isinstance(said, str):
                raise TypeError
            yield item, row
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            bad.add(item, "no object with the texts file and name (or caption)")


def _csv_rows(data: bytes, listed: str, bad: BadSamples) -> Iterator[tuple[str, Mapping[str, Any]]]:
    text = data.decode("utf-8-sig", errors="surrogateescape")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or ()]
    if "file" not in columns or not {"caption", "name"} & {*columns}:
        raise UserError(f"{listed}: its first line needs the columns file and caption (or name), with commas between")
    while True:
        first = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            bad.add(f"{listed}:{first}", f"no CSV: {error}")
            continue
        item = f"{listed}:{first}"
        said = row.get("name") or row.get("caption")
        if reader.line_num > first:
            # Often of a quotation mark that nobody closed: the rows after it are inside.
            bad.add(f"{item}-{reader.line_num}", "a row of several lines; write each in one, quotation marks doubled")
        elif None in row or not row["file"] or not said:
            bad.add(item, "no file, or no caption or name" if None not in row else "more values than columns")
        elif not said.isascii() and any("\udc80" <= c <= "\udcff" for c in said + row["file"]):
            bad.add(item, "not UTF-8")
        else:
            yield item, {key: value for key, value in row.items() if value}


def _merged(rows: Iterator[tuple[str, Mapping[str, Any]]], folder: Folder) -> Iterator[Entry]:
    """One entry a picture, with all of its captions; a name is an entry of its own."""
    captioned: dict[str, Entry] = {}
    for item, row in rows:
        file = row["file"]
        read = partial(folder.read, file, MOST_BYTES)
        if "name" in row:
            yield Entry(f"{item} {file}", file, read, row["name"])
        elif file in captioned:
            captioned[file].captions.append(row["caption"])
        else:
            captioned[file] = Entry(f"{item} {file}", file, read, None, [row["caption"]])
    yield from captioned.values()


def _sidecar(folder: Folder, names: list[str], bad: BadSamples) -> Iterator[Entry]:
    """Pictures with a text of the same name, ``cat.jpg`` and ``cat.txt``; each line of it is a caption."""
    texts = {name[:-4]: name for name in names if name.lower().endswith(".txt")}
    used = set()
    for name in names:
        if not name.lower().endswith(PICTURES):
            continue
        stem = name[: -len(PurePosixPath(name).suffix)]
        used.add(stem)
        if stem not in texts:
            bad.add(name, "no text of the same name beside it")
            continue
        try:
            text = folder.read(texts[stem], LONGEST_LINE).decode("utf-8")
        except ValueError as error:
            reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error
            bad.add(name, f"its text {texts[stem]}: {reason}")
            continue
        captions = [line for line in text.splitlines() if line.strip()]
        yield Entry(name, name, partial(folder.read, name, MOST_BYTES), None, captions or [""])
    for stem in texts.keys() - used:
        bad.add(texts[stem], "no picture of the same name beside it")


def _tars(folder: Folder, names: list[str], bad: BadSamples) -> Iterator[Entry]:
    """WebDataset: tars of ``KEY.jpg`` (or ``.png`` ...) with ``KEY.txt`` or ``KEY.json`` (caption or name)."""
    tars = [name for name in names if name.lower().endswith(".tar")]
    if not tars:
        raise UserError(f"images.path: {folder.address} holds no .tar file")
    for name in names:
        if name.lower().endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")):
            bad.add(name, "a compressed tar; unpack it to .tar")
    for name in tars:
        seen = 0
        try:
            with folder.open(name) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                for key, members in _samples(tar):
                    seen += 1
                    entry = _sample(f"{name}/{key}", members, bad)
                    if entry is not None:
                        yield entry
        except (tarfile.TarError, ValueError, OSError, EOFError) as error:
            bad.add(name, f"damaged after {seen} samples; what follows is left out: {error}")


def _samples(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, bytes | str]]]:
    """Neighbouring members of one key; a member that is not read has its reason in place of its bytes."""
    key = ""
    members: dict[str, bytes | str] = {}
    for member in tar:
        if not member.isreg() or member.issparse():
            continue
        above, _, last = member.name.rpartition("/")
        stem, _, kind = last.partition(".")
        at = f"{above}/{stem}" if above else stem
        if at != key:
            if members:
                yield key, members
            key, members = at, {}
        kind = kind.lower()
        most = MOST_BYTES if f".{kind}" in PICTURES else LONGEST_LINE
        file = tar.extractfile(member) if member.size <= most else None
        data = file.read() if file is not None else f"more than {most:,} bytes"
        if isinstance(data, bytes) and len(data) != member.size:
            raise tarfile.ReadError("the file is cut off")
        members[kind] = data
    whole = tar.fileobj
    assert whole is not None
    whole.seek(tar.offset)
    if any(end := whole.read(tarfile.BLOCKSIZE)) or len(end) < tarfile.BLOCKSIZE:  # tarfile takes a cut for the end
        raise tarfile.ReadError("the file is cut off")
    if members:
        yield key, members


def _sample(item: str, members: dict[str, bytes | str], bad: BadSamples) -> Entry | None:
    """A sample's picture and what is said of it; None if it was set aside."""
    picture = next((members[kind] for kind in sorted(members) if f".{kind}" in PICTURES), None)
    try:
        if picture is None:
            raise ValueError("no picture in the sample")
        for data in (picture, members.get("txt"), members.get("json")):
            if isinstance(data, str):
                raise ValueError(data)
        name, captions = None, []
        if "txt" in members:
            captions = [str(members["txt"], "utf-8")]  # type: ignore[arg-type]
        elif "json" in members:
            row = json.loads(members["json"])
            said = row.get("caption", row.get("captions")) if isinstance(row, dict) else None
            name = row.get("name") if isinstance(row, dict) and said is None else None
            captions = [said] if isinstance(said, str) else said or []
        if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
            raise ValueError("no caption in the sample")
        if not captions and not isinstance(name, str):
            raise ValueError("no caption in the sample")
    except UnicodeDecodeError:
        bad.add(item, "its text is not UTF-8")
    except (ValueError, RecursionError) as error:
        bad.add(item, f"no JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error))
    else:
        data = picture if isinstance(picture, bytes) else b""
        return Entry(item, item, lambda: data, name, captions)
    return None
