"""What is in pictures of one's own."""

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image
from tqdm import tqdm

from muomni.check.copies import Item, check_copies
from muomni.check.findings import Sample, Section
from muomni.check.words import check_words, numbers
from muomni.data.badsamples import BadSamples
from muomni.data.folders import Folder
from muomni.data.image_corpus import ImagesConfig
from muomni.data.mixtures import Origin, read_mixture
from muomni.data.own_pictures import (
    CAPTIONED_SHARES,
    NAMED_SHARES,
    check_name,
    clean_captions,
    fit,
    hold_out,
    load_image,
)
from muomni.data.own_speech import stated_licences
from muomni.data.picture_entries import Entry
from muomni.data.picture_sources import PicturePart, entries
from muomni.tokenizer import Tokenizer

TINY = 32  # pixels of the shorter side
HUGE = 12_000_000  # pixels
LEAST = 10
SAMPLES, THUMB = 12, 128
FINGERPRINT = 16  # pixels on a side of what copies are found by


@dataclass(frozen=True)
class Seen:
    """A picture that can be used: its name or captions, its size, hashes of its bytes and of what it shows."""

    name: str | None
    captions: tuple[str, ...]
    width: int
    height: int
    format: str
    digest: str
    fingerprint: str


def parts_of(config: ImagesConfig) -> list[PicturePart]:
    """The sources of section ``images`` that are somebody's own; raises UserError as `read_mixture` does."""
    if config.source != "mixture":
        return [PicturePart(source=config.source, path=config.path)]
    return [part for part in read_mixture(config.path, PicturePart, "images.path") if part.source != "embedded"]


def check_pictures(config: ImagesConfig, seed: int, script: str, tokenizer: Tokenizer | None) -> Section:
    """Read all pictures as stage corpus-images will, and tell what is there.

    Args:
        config: section ``images``, of a source of one's own.
        seed: the project's, for the splits.
        script: that letters of captions are expected in.
        tokenizer: to ask, if there is one.

    Raises:
        UserError: if there is no such source.
    """
    section = Section("pictures", config.source, config.path)
    bad = BadSamples(1.0, "images")
    found, stated = dict[str, Seen](), list[str]()
    hashes, items = dict[str, str](), dict[str, Item]()
    for part in parts_of(config):
        bad.within = f"{part.name}/" if part.name else ""
        mine = dict[str, Seen]()
        listed = entries(part, bad, Origin(part.name, part.source, "", part.licence, part.weight))
        for entry in tqdm(listed, desc="pictures", unit="picture"):
            try:
                _look(section, entry, config.max_pixels, bad, hashes, mine)
            except (ValueError, OSError) as error:
                bad.add(entry.item, str(error))
        items |= _dealt(mine, seed)
        found |= mine
        stated += stated_licences(Folder(part.path, "images.path"))
    section.total = len(found) + len(bad)
    for fault in bad.items:
        section.add("cannot be used", fault["item"], fault["reason"])
    check_copies(section, items)
    _count(section, found, items)
    texts = ((item, caption) for item, seen in found.items() for caption in seen.captions)
    check_words(section, texts, script, tokenizer)
    section.facts["licence"] = "; ".join(stated) or "none is stated"
    if not stated:
        section.add("no licence is stated", config.path, "no LICENSE file")
    return section


def _look(
    section: Section, entry: Entry, max_pixels: int, bad: BadSamples, hashes: dict[str, str], mine: dict[str, Seen]
) -> None:
    """One picture; raises ValueError or OSError for what the stage sets aside."""
    if entry.name is not None:
        check_name(entry.name)
    captions = [] if entry.name is not None else clean_captions(entry, bad)
    data = entry.read()
    image = load_image(data, max_pixels)
    width, height, kind = image.width, image.height, image.format or "?"
    shown = fit(image)
    digest = hashlib.sha256(data).hexdigest()
    here = f"{bad.within}{entry.file}"
    if digest in hashes:
        raise ValueError(f"the same picture as {hashes[digest]}")
    hashes[digest] = here
    mine[here] = Seen(entry.name, tuple(captions), width, height, kind, digest, fingerprint(shown))
    if min(width, height) < TINY:
        section.add("tiny picture", here, f"{width} x {height} pixels", -min(width, height))
    if width * height > HUGE:
        section.add("huge picture", here, f"{width} x {height} pixels", width * height)
    if len(section.samples) < SAMPLES:
        shown.thumbnail((THUMB, THUMB))
        encoded = io.BytesIO()
        shown.save(encoded, "PNG")
        section.samples.append(Sample(here, entry.name or captions[0], "image/png", encoded.getvalue()))


def fingerprint(image: Image.Image) -> str:
    """Where a picture is lighter than a little to the left: the same for one that was saved again or made smaller."""
    small = image.convert("L").resize((FINGERPRINT + 1, FINGERPRINT), Image.Resampling.BOX)
    values, width = list(small.tobytes()), FINGERPRINT + 1
    bits = [values[at] > values[at + 1] for at in range(len(values)) if at % width < FINGERPRINT]
    mean = base64.b16encode(image.convert("RGB").resize((1, 1), Image.Resampling.BOX).tobytes()).decode()
    # Flat pictures have no bits that differ; then colour alone tells them apart.
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):x}-{mean if not any(bits) else ''}"


def _dealt(mine: Mapping[str, Seen], seed: int) -> dict[str, Item]:
    """Each picture of a source with the split that the stage deals it to."""
    splits = dict[str, str]()
    for name in {seen.name for seen in mine.values()}:
        keys = {(here if name is not None else seen.digest): here for here, seen in mine.items() if seen.name == name}
        dealt = hold_out(name or "", keys, seed, *(CAPTIONED_SHARES if name is None else NAMED_SHARES))
        splits |= {here: dealt.get(key, "all" if name is not None else "train") for key, here in keys.items()}
    return {here: Item(splits[here], seen.fingerprint) for here, seen in mine.items()}


def _count(section: Section, found: Mapping[str, Seen], items: Mapping[str, Item]) -> None:
    names = Counter(seen.name for seen in found.values() if seen.name is not None)
    sides = [float(min(seen.width, seen.height)) for seen in found.values()]
    kinds = Counter(seen.format for seen in found.values())
    section.facts |= {
        "pictures": f"{len(found):,} of {section.total:,} can be used",
        "names": f"{len(names):,}; pictures of each: {numbers(names.values())}",
        "captions": f"{sum(len(seen.captions) for seen in found.values()):,}",
        "pixels of the shorter side": numbers(sides),
        "formats": ", ".join(f"{kind} ({count:,})" for kind, count in kinds.most_common()) or "none",
    }
    if names:
        section.tables["names"] = [["name", "pictures"], *([name, count] for name, count in names.most_common())]
    splits = Counter(item.split for item in items.values())
    section.tables["splits"] = [["name", "pictures"], *([name, count] for name, count in sorted(splits.items()))]
    section.histograms["pixels of the shorter side"] = sides
    if len(found) < LEAST:
        section.add("too few", section.address, f"{len(found)} pictures, less than {LEAST}")
