"""What is in pictures of one's own."""

import base64
import io
import random
from collections import Counter
from collections.abc import Sequence

from PIL import Image

from muomni.check.copies import Item, check_copies
from muomni.check.findings import Sample, Section
from muomni.check.words import numbers
from muomni.data.badsamples import BadSamples
from muomni.data.folders import Folder
from muomni.data.image_corpus import MOST_BYTES, ImagesConfig, NamedImage, folder_images
from muomni.data.own_speech import stated_licences
from muomni.untrusted import IMAGE_FORMATS

ENDS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".ico")
TINY = 32  # pixels of the shorter side
HUGE = 12_000_000  # pixels
LEAST = 10
SAMPLES, THUMB = 12, 128
FINGERPRINT = 16  # pixels on a side of what near copies are found by


def check_pictures(config: ImagesConfig, seed: int) -> Section:
    """Read all pictures as stage corpus-images will, and tell what is there.

    Args:
        config: section ``images``, of a source of one's own.
        seed: the project's, for the splits.

    Raises:
        UserError: if there is no such source.
    """
    section = Section("pictures", config.source, config.path)
    bad = BadSamples(1.0, "images")
    images = folder_images(config.path, seed, config.max_pixels, bad)
    section.total = len(images) + len(bad)
    for entry in bad.items:
        section.add("cannot be used", entry["item"], entry["reason"])
    names = Counter(image.concept.name for image in images)
    section.facts |= {
        "pictures": f"{len(images):,} of {section.total:,} can be used",
        "names": len(names),
        "pictures of a name": numbers(names.values()),
    }
    section.tables["names"] = [["name", "pictures"], *([name, count] for name, count in names.most_common())]
    splits = Counter(image.split or "all" for image in images)
    section.tables["splits"] = [["name", "pictures"], *([name, count] for name, count in sorted(splits.items()))]
    if len(images) < LEAST:
        section.add("too few", config.path, f"{len(images)} pictures, less than {LEAST}")
    folder = Folder(config.path, "images.path")
    _sizes(section, folder)
    check_copies(section, {image.id: Item(image.split or "all", _fingerprint(image.image)) for image in images})
    stated = stated_licences(folder)
    section.facts["licence"] = "; ".join(stated) or "none is stated"
    if not stated:
        section.add("no licence is stated", config.path, "no LICENSE file")
    section.samples = _samples(images, seed)
    return section


def _fingerprint(image: Image.Image) -> str:
    """Where a picture is lighter than a little to the left: the same for one that was saved again or made smaller."""
    small = image.convert("L").resize((FINGERPRINT + 1, FINGERPRINT), Image.Resampling.BOX)
    values = list(small.tobytes())
    width = FINGERPRINT + 1
    bits = [values[at] > values[at + 1] for at in range(len(values)) if at % width < FINGERPRINT]
    mean = base64.b16encode(image.convert("RGB").resize((1, 1), Image.Resampling.BOX).tobytes()).decode()
    # Flat pictures have no bits that differ; then colour alone tells them apart.
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):x}-{mean if not any(bits) else ''}"


def _sizes(section: Section, folder: Folder) -> None:
    """Note pictures that are tiny or huge, by their files' heads."""
    sides = list[float]()
    kinds = Counter[str]()
    for name in folder.files(ENDS):
        try:
            with folder.open(name, MOST_BYTES) as file, Image.open(file, formats=IMAGE_FORMATS) as image:
                width, height, kind = image.width, image.height, image.format or "?"
        except Exception:  # nosec B112: the stage's reader has told why; Pillow raises almost anything
            continue
        kinds[kind] += 1
        sides.append(min(width, height))
        if min(width, height) < TINY:
            section.add("tiny picture", name, f"{width} x {height} pixels", -min(width, height))
        if width * height > HUGE:
            section.add("huge picture", name, f"{width} x {height} pixels", width * height)
    section.facts["pixels of the shorter side"] = numbers(sides)
    section.facts["formats"] = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common()) or "none"
    section.histograms["pixels of the shorter side"] = sides


def _samples(images: Sequence[NamedImage], seed: int) -> list[Sample]:
    made = []
    for image in random.Random(seed).sample(list(images), min(SAMPLES, len(images))):
        small = image.image.copy()
        small.thumbnail((THUMB, THUMB))
        encoded = io.BytesIO()
        small.save(encoded, "PNG")
        made.append(Sample(image.id, image.concept.name, "image/png", encoded.getvalue()))
    return made
