"""Pictures that somebody brings: checked, fitted, and dealt out to the splits.

What has a name becomes a drawing of it, as the package's are. What has captions stays a whole picture, in a square as
the model is shown pictures later, and is described in the words of its captions.
"""

import dataclasses
import hashlib
import io
import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from muomni.data.badsamples import BadSamples
from muomni.data.concepts import Concept, by_name
from muomni.data.mixtures import Origin, times
from muomni.data.picture_entries import MOST_BYTES, Entry
from muomni.data.picture_sources import PicturePart, entries
from muomni.data.splits import split_of
from muomni.untrusted import IMAGE_FORMATS

DRAWING_PIXELS = 160  # longest side of a stored drawing
LONGEST_NAME = 80  # letters and spaces: it becomes a part of files' names
LONGEST_CAPTION = 500  # characters
HOLD_OUT_FROM = 3  # pictures of one name, or with captions, from which on some of them are held out
NAMED_SHARES, CAPTIONED_SHARES = (0.1, 0.15), (0.04, 0.06)  # for validation, for testing
IN_A_FOLDER = 10_000


@dataclasses.dataclass(frozen=True)
class NamedImage:
    """A picture and what it shows; `split` is None if every split may show it, in renderings of its own.

    `image` may be a PNG already. `style` is told of drawings that come in several.
    """

    id: str
    concept: Concept
    image: Image.Image | bytes
    split: str | None = None
    weight: float = 1.0
    style: str | None = None


def fit(image: Image.Image) -> Image.Image:
    """RGBA, cut to what is drawn, longest side `DRAWING_PIXELS`.

    Raises:
        ValueError: if nothing is drawn.
    """
    image = image.convert("RGBA")
    found = image.getchannel("A").getbbox()
    if found is None:
        raise ValueError("it is wholly transparent")
    image = image.crop(found)
    scale = DRAWING_PIXELS / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def square(image: Image.Image, size: int) -> Image.Image:
    """RGB ``size`` x ``size``, upright, padded: what the model gets when it is asked about the picture.

    Raises:
        ValueError: if it cannot be converted.
    """
    from muomni.media import _to_rgb, image_to_tensor  # torch, which only captions need

    try:
        pixels = image_to_tensor(_to_rgb(ImageOps.exif_transpose(image)), size)
    except Exception as error:  # of odd modes and damaged EXIF
        raise ValueError(f"damaged: {error}") from None
    return Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy())


def load_image(data: bytes, max_pixels: int) -> Image.Image:
    """Read a picture that somebody else made.

    Raises:
        ValueError: if it is empty, too large, damaged or no picture, with the reason.
    """
    if not data:
        raise ValueError("empty file")
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
        pixels = image.width * image.height
        if pixels > max_pixels:
            raise ValueError(f"{image.width} x {image.height} pixels, more than images.max_pixels ({max_pixels})")
        image.load()
        return image
    except UnidentifiedImageError:
        raise ValueError("no picture, or of a type that cannot be read") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more pixels than images.max_pixels ({max_pixels})") from None
    except ValueError:
        raise
    except Exception as error:  # damaged files raise almost anything in PIL
        raise ValueError(f"damaged: {error}") from None


def _own_concept(name: str) -> Concept:
    """The table's row for a name, or a row that only says the name."""
    known = by_name().get(name)
    if known is not None:
        return dataclasses.replace(known, scene=False)
    return Concept(name, f"{name}s", "", "", False, name, None, 0, frozenset())


def check_name(name: str) -> None:
    """Raise ValueError for a name that cannot be drawn and asked about."""
    if not re.fullmatch(r"[a-z]+( [a-z]+){0,3}", name):
        raise ValueError(f"the name {name!r} is not one to four words of the letters a to z")
    if len(name) > LONGEST_NAME:
        raise ValueError(f"the name has {len(name):,} letters, more than {LONGEST_NAME}")


def clean_captions(entry: Entry, bad: BadSamples) -> list[str]:
    """The usable captions, in one line each.

    Where some of several are bad, each is set aside by itself. Raises ValueError if none is good.
    """
    good, reasons = [], []
    for number, caption in enumerate(entry.captions, 1):
        text = " ".join(unicodedata.normalize("NFC", caption).split())
        text = "".join(character for character in text if character.isprintable())
        if not text or len(text) > LONGEST_CAPTION:
            reason = f"a caption of {len(text):,} characters, more than {LONGEST_CAPTION}" if text else "empty caption"
            reasons.append((number, reason))
        elif text not in good:
            good.append(text)
    if not good:
        raise ValueError(reasons[0][1])
    for number, reason in reasons:
        bad.add(f"{entry.item} caption {number}", reason)
    return good


def read_own(
    part: PicturePart,
    seed: int,
    max_pixels: int,
    size: int,
    folder: Path,
    bad: BadSamples,
    origin: Origin,
    hashes: dict[str, str],
) -> tuple[list[NamedImage], list[dict[str, Any]]]:
    """Read the pictures of a source; those with captions are written to ``pictures/`` as they come.

    Args:
        part: the source.
        seed: the project's seed.
        max_pixels: a picture with more is set aside.
        size: width and height of what is written, in pixels.
        folder: where it goes.
        bad: takes what cannot be used.
        origin: takes what the source gave.
        hashes: of all pictures so far, with their names; a picture that comes again, also from another source, is set
            aside, or it could be in two splits.

    Returns:
        The pictures with a name; and rows of those with captions: ``id``, ``file``, ``captions``, ``split``, ``times``
        (how often training has it) and ``source``.
    """
    found: dict[str, list[tuple[str, Image.Image]]] = defaultdict(list)
    rows: list[dict[str, Any]] = []
    label = f"{part.name}-" if part.name else ""
    for entry in entries(part, bad, origin):
        try:
            if entry.name is not None:
                check_name(entry.name)
            captions = [] if entry.name is not None else clean_captions(entry, bad)
            data = entry.read()
            image = load_image(data, max_pixels)
            image = square(image, size) if entry.name is None else fit(image)
            digest = hashlib.sha256(data).hexdigest()
            known = digest in hashes
            here = f"{bad.within}{entry.file}"
            twin = hashes.setdefault(digest, here)
            if entry.name is not None:
                if twin != here or any(file == entry.file for file, _ in found[entry.name]):
                    raise ValueError(f"the same picture as {twin}")
                found[entry.name].append((entry.file, image))
                continue
            if known:
                raise ValueError(f"the same picture as {twin}")
            name = f"{label}picture-{len(rows):07d}"
            file = f"pictures/{label}{len(rows) // IN_A_FOLDER:04d}/{name}.png"
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            image.save(folder / file, "PNG")
            rows.append({"id": name, "file": file, "captions": captions, "digest": digest})
        except (ValueError, OSError) as error:
            bad.add(entry.item, str(error))
    origin.items = len(rows) + sum(len(files) for files in found.values())
    return _named(found, seed, label, part.weight), _dealt(rows, seed, part)


def _named(found: dict[str, list[tuple[str, Image.Image]]], seed: int, label: str, weight: float) -> list[NamedImage]:
    images = []
    for name, files in sorted(found.items()):
        splits = hold_out(name, [file for file, _ in files], seed, *NAMED_SHARES)
        for number, (file, image) in enumerate(files):
            key = f"{label}{name.replace(' ', '-')}-{number:05d}"
            images.append(NamedImage(key, _own_concept(name), image, splits.get(file), weight))
    return images


def _dealt(rows: list[dict[str, Any]], seed: int, part: PicturePart) -> list[dict[str, Any]]:
    """Rows of pictures with captions, each in its split and with how often training meets it."""
    splits = hold_out("", [row["digest"] for row in rows], seed, *CAPTIONED_SHARES)
    mine = [row["digest"] for row in rows if splits.get(row["digest"], "train") == "train"]
    often = times(mine, part.weight, seed)
    source = part.name or part.source
    dealt = []
    for row in rows:
        digest = row.pop("digest")
        dealt.append(row | {"split": splits.get(digest), "times": often.get(digest, 1), "source": source})
    return dealt


def hold_out(name: str, files: Iterable[str], seed: int, valid: float, test: float) -> dict[str, str]:
    """Assign a name's files to splits by hash, at least one to each; an empty dict if they are too few.

    Args:
        name: what the files show; empty for pictures with captions, which are dealt together.
        files: names or digests; their order does not matter.
        seed: of the run.
        valid: share of the validation split, 0 to 1.
        test: share of the test split, 0 to 1.

    Returns:
        Each file's split: ``train``, ``valid`` or ``test``.
    """
    files = sorted(files, key=lambda file: hashlib.sha256(f"{seed}:{name}:{file}".encode()).digest())
    if len(files) < HOLD_OUT_FROM:
        return {}
    splits = {file: split_of(f"{name}:{file}", seed, valid=valid, test=test) for file in files}
    return splits | dict(zip(files, ("train", "valid", "test"), strict=False))
