"""COCO's captions: pictures and what is said of them, in JSON files beside folders of pictures."""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from muomni.data.badsamples import BadSamples
from muomni.data.folders import Folder
from muomni.data.picture_entries import MOST_BYTES, MOST_LISTED, PICTURES, Entry
from muomni.errors import UserError


def coco_entries(folder: Folder, names: list[str], bad: BadSamples) -> Iterator[Entry]:
    """Of ``annotations/captions_*.json``, and the pictures anywhere below.

    Raises:
        UserError: if there is no such file.
    """
    lists = [n for n in names if n.startswith("annotations/captions_") and n.lower().endswith(".json")]
    if not lists:
        raise UserError(f"images.path: {folder.address} holds no annotations/captions_*.json")
    places: dict[str, list[str]] = {}
    for name in names:
        if name.lower().endswith(PICTURES):
            places.setdefault(PurePosixPath(name).name, []).append(name)
    for listed in lists:
        try:
            table = json.loads(folder.read(listed, MOST_LISTED))
            pictures, annotations = table["images"], table["annotations"]
            if not isinstance(pictures, list) or not isinstance(annotations, list):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            bad.add(listed, f"no COCO captions: {error}" if isinstance(error, ValueError) else "no COCO captions")
            continue
        yield from _coco_pictures(folder, listed, pictures, annotations, places, bad)


def _coco_pictures(
    folder: Folder,
    listed: str,
    pictures: list[Any],
    annotations: list[Any],
    places: Mapping[str, list[str]],
    bad: BadSamples,
) -> Iterator[Entry]:
    captions: dict[int, list[str]] = {}
    known = {row["id"] for row in pictures if isinstance(row, dict) and type(row.get("id")) is int}
    for number, row in enumerate(annotations):
        picture = row.get("image_id") if isinstance(row, dict) else None
        if type(picture) is not int or not isinstance(row.get("caption"), str):
            bad.add(f"{listed} annotations[{number}]", "no image_id and caption")
        elif picture not in known:
            bad.add(f"{listed} annotations[{number}]", f"image_id {picture} is no picture of this file")
        else:
            captions.setdefault(picture, []).append(row["caption"])
    seen = set[int]()
    for number, row in enumerate(pictures):
        file, picture = (row.get("file_name"), row.get("id")) if isinstance(row, dict) else (None, None)
        item = f"{listed} images[{number}]"
        if not isinstance(file, str) or type(picture) is not int:
            bad.add(item, "no id and file_name")
        elif picture in seen:
            bad.add(f"{item} {file}", f"another picture has the id {picture}")
        elif picture not in captions:
            bad.add(f"{item} {file}", "no caption")
        else:
            seen.add(picture)
            found = _places(file, listed, places)
            if len(found) > 1:
                bad.add(f"{item} {file}", f"which one is it, {found[0]} or {found[1]}?")
                continue
            place = found[0] if found else f"images/{file}"
            yield Entry(f"{item} {file}", place, partial(folder.read, place, MOST_BYTES), None, captions[picture])


def _places(file: str, listed: str, places: Mapping[str, list[str]]) -> list[str]:
    """Where a picture may be: first those with all of the name, then those in a folder called as the list is."""
    found = places.get(PurePosixPath(file).name, [])
    subset = PurePosixPath(listed).stem.removeprefix("captions_")  # train2017
    for narrower in (
        [name for name in found if f"/{name}".endswith(f"/{file}")],
        [name for name in found if subset in name.split("/")],
    ):
        found = narrower or found
    return found
