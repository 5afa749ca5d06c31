"""Folders of pictures in the layouts that are read, with bad items of every kind and the reasons they should get."""

import csv
import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

MAX_PIXELS = 100_000
THINGS = ("dog", "cat", "apple", "car")


def drawn(number: int, kind: str = "PNG") -> bytes:
    """A little picture, another one for each number."""
    rng = random.Random(number)
    image = Image.new("RGB", (40 + number % 30, 30 + number % 20), tuple(rng.randrange(256) for _ in range(3)))
    x, y = rng.randrange(20), rng.randrange(15)
    ImageDraw.Draw(image).ellipse((x, y, x + 15, y + 12), tuple(rng.randrange(256) for _ in range(3)))
    image.putpixel((0, 0), (number % 256, number // 256 % 256, 7))
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def huge() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (500, 400)).save(buffer, "PNG")
    return buffer.getvalue()


def caption(number: int) -> str:
    return f"A {THINGS[number % 4]} in front of house number {number}."


# What can be wrong with a picture's file, whatever lists it.
BAD_FILES: tuple[tuple[Callable[[int], bytes], str], ...] = (
    (lambda n: b"", "empty file"),
    (lambda n: b"no picture at all", "no picture"),
    (lambda n: drawn(n)[:90], "damaged"),
    (lambda n: huge(), "500 x 400 pixels, more than images.max_pixels"),
    (lambda n: drawn(1), "the same picture as"),
)
BAD_CAPTIONS = ((" \t", "empty caption"), ("w " * 400, "a caption of 799 characters"))


class Turns:
    """Says for each number from 0 on whether it is to be bad, and in which of several ways, each in turn."""

    def __init__(self, every: int, ways: int) -> None:
        self.every, self.ways, self.number = every, ways, 0

    def at(self, number: int) -> int | None:
        """The way, or None for a good one; the first two are always good."""
        if number < 2 or (number + 1) % self.every:
            return None
        self.number += 1
        return (self.number - 1) % self.ways


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_csv(folder: Path, number: int, every: int) -> dict[str, str]:
    """``captions.csv`` and pictures; returns the reasons by how items begin."""
    files, captions = len(BAD_FILES), len(BAD_CAPTIONS[1:])
    more = [("none", "no such file"), ("out", "outside the folder"), ("", "no file"), ("latin", "not UTF-8")]
    turns, reasons, lines = Turns(every, files + captions + len(more)), {}, [b"file,caption\n"]
    for n in range(number):
        way, file, said, item = turns.at(n), f"{n:04d}.png", caption(n), f"captions.csv:{n + 2}"
        data = drawn(n)
        line = b""
        if way is not None:
            if way < files:
                data, reasons[item] = BAD_FILES[way][0](n), BAD_FILES[way][1]
            elif way < files + captions:
                said, reasons[item] = BAD_CAPTIONS[1]
            else:
                file, reasons[item] = more[way - files - captions]
                file = {"none": f"none{n}.png", "out": f"../out{n}.png", "": "", "latin": "0000.png"}[file]
                line = b"0000.png,caf\xe9\n" if reasons[item] == "not UTF-8" else b""
        if file == f"{n:04d}.png":
            put(folder / file, data)
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow([file, said])
        lines.append(line or buffer.getvalue().encode())
    put(folder / "captions.csv", b"".join(lines))
    return reasons


def write_folder(folder: Path, number: int, every: int) -> dict[str, str]:
    """``captions.jsonl`` and pictures, of which every second one has a name and the others a caption."""
    names = [{"name": "Not A Name!"}, {"name": "a" * 300}, {"caption": ""}, {"caption": 3}, {}]
    told = ["the name 'Not A Name!' is not", "the name has 300 letters", "empty caption", *["no object with"] * 2]
    turns, reasons, lines = Turns(every, len(BAD_FILES) + len(names) + 1), {}, []
    for n in range(number):
        way, item, data = turns.at(n), f"captions.jsonl:{n + 1}", drawn(n)
        row: dict[str, Any] = {"name": THINGS[n // 2 % 4]} if n % 2 else {"caption": caption(n)}
        if way is not None and way < len(BAD_FILES):
            data, reasons[item] = BAD_FILES[way][0](n), BAD_FILES[way][1]
        elif way is not None and way < len(BAD_FILES) + len(names):
            row, reasons[item] = names[way - len(BAD_FILES)], told[way - len(BAD_FILES)]
        put(folder / f"{n:04d}.png", data)
        line = json.dumps(row | {"file": f"{n:04d}.png"})
        if way == len(BAD_FILES) + len(names):
            line, reasons[item] = "{", "no object with"
        lines.append(line + "\n")
    put(folder / "captions.jsonl", "".join(lines).encode())
    return reasons


def write_sidecar(folder: Path, number: int, every: int) -> dict[str, str]:
    """Pictures with texts of the same name, in folders."""
    files = len(BAD_FILES)
    turns, reasons = Turns(every, files + len(BAD_CAPTIONS) + 3), {}
    for n in range(number):
        way, item, data = turns.at(n), f"part{n // 50}/{n:04d}.jpg", drawn(n, "JPEG")
        text: bytes | None = caption(n).encode()
        if way is not None:
            if way < files:
                data, reasons[item] = BAD_FILES[way][0](n), BAD_FILES[way][1]
                data = drawn(1, "JPEG") if reasons[item].startswith("the same") else data
            elif way < files + len(BAD_CAPTIONS):
                said, reasons[item] = BAD_CAPTIONS[way - files]
                text = said.encode()
            elif way == files + len(BAD_CAPTIONS):
                text, reasons[item] = None, "no text of the same name"
            elif way == files + len(BAD_CAPTIONS) + 1:
                text, reasons[item] = b"caf\xe9", f"its text {item[:-4]}.txt: not UTF-8"
            else:
                item, data = f"{item[:-4]}.txt", b"-"
                reasons[item] = "no picture of the same name"
        if data != b"-":
            put(folder / item, data)
        if text is not None:
            put(folder / f"{item[:-4]}.txt", text)
    return reasons


def write_coco(folder: Path, number: int, every: int) -> dict[str, str]:
    """COCO's layout: two files of annotations, five captions a picture, pictures in folders of ``images/``."""
    files = len(BAD_FILES)
    reasons: dict[str, str] = {}
    for part, first, last in (("train2017", 0, number * 3 // 4), ("val2017", number * 3 // 4, number)):
        turns = Turns(every, files + 4)
        listed = f"annotations/captions_{part}.json"
        table: dict[str, Any] = {"info": {"description": "made for tests"}, "images": [], "annotations": []}
        for n in range(first, last):
            way, file, data, said = turns.at(n), f"{n:012d}.jpg", drawn(n, "JPEG"), [caption(n), f"It is {n}."]
            item = f"{listed} images[{n - first}]"
            row: dict[str, Any] = {"id": 1000 + n, "file_name": file, "width": 1, "height": 1}
            if way is not None and way < files:
                data, reasons[item] = BAD_FILES[way][0](n), BAD_FILES[way][1]
                data = drawn(1, "JPEG") if reasons[item].startswith("the same") else data
            elif way == files:
                said, reasons[item] = [], "no caption"
            elif way == files + 1:
                row, said, reasons[item] = {"id": "x"}, [], "no id and file_name"
            elif way == files + 2:
                said, reasons[item] = ["", " "], "empty caption"
            elif way == files + 3:
                data, reasons[item] = b"-", "no such file"
            if data != b"-":
                put(folder / "images" / part / file, data)
            table["images"].append(row)
            table["annotations"] += [{"image_id": 1000 + n, "id": len(said), "caption": text} for text in said]
        put(folder / listed, json.dumps(table).encode())
    return reasons


def write_tars(folder: Path, number: int, every: int) -> dict[str, str]:
    """WebDataset tars of 50 samples, with captions in ``.txt`` and ``.json`` in turn."""
    files = len(BAD_FILES)
    turns, reasons = Turns(every, files + 5), {}
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, number, 50):
        with tarfile.open(folder / f"part-{first // 50:03d}.tar", "w") as tar:
            for n in range(first, min(first + 50, number)):
                way, item = turns.at(n), f"part-{first // 50:03d}.tar/{n:06d}"
                members = {"png": drawn(n), "txt": caption(n).encode()}
                if n % 3 == 1:
                    members = {"png": drawn(n), "json": json.dumps({"caption": caption(n)}).encode()}
                if way is not None and way < files:
                    members["png"], reasons[item] = BAD_FILES[way][0](n), BAD_FILES[way][1]
                elif way is not None:
                    members, reasons[item] = [
                        ({"txt": b"A text."}, "no picture in the sample"),
                        ({"png": drawn(n)}, "no caption in the sample"),
                        ({"png": drawn(n), "txt": b"caf\xe9"}, "its text is not UTF-8"),
                        ({"png": drawn(n), "json": b"{"}, "no JSON"),
                        ({"png": drawn(n), "json": b'{"caption": 3}'}, "no caption in the sample"),
                    ][way - files]
                for kind, data in members.items():
                    info = tarfile.TarInfo(f"{n:06d}.{kind}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return reasons


WRITERS = {
    "folder": write_folder,
    "csv": write_csv,
    "sidecar": write_sidecar,
    "coco": write_coco,
    "webdataset": write_tars,
}
