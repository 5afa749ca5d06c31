"""Pictures of the corpus on one sheet, to be looked at.

    python -m benchmarks.contact_sheet drawings --first 0 --count 112   # names, each in all its styles side by side
    python -m benchmarks.contact_sheet pictures                         # of each style, known and held out, and scenes

Drawings come from data/corpus/images, pictures from data/shards/images.
"""

import argparse
import io
import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from muomni.data.files import read_jsonl
from muomni.data.image_corpus import CONCEPTS
from muomni.data.shards import read_shards
from muomni.data.styles import STYLES

CORPUS, SHARDS = Path("data/corpus/images"), Path("data/shards/images")
LINE = 12  # pixels of a line of text
READ = 3000  # training pictures among which some are drawn


def sheet(cells: Sequence[tuple[str, Sequence[Image.Image | None]]], columns: int, side: int) -> Image.Image:
    """Cells of a caption and pictures beside each other, in rows of so many cells."""
    width = max(len(images) for _, images in cells) * side + 8
    rows = -(-len(cells) // columns)
    page = Image.new("RGB", (columns * width, rows * (side + LINE + 4)), "white")
    draw = ImageDraw.Draw(page)
    for number, (caption, images) in enumerate(cells):
        x, y = number % columns * width, number // columns * (side + LINE + 4)
        draw.text((x, y), caption[: width // 6], fill="black")
        for place, image in enumerate(images):
            if image is not None:
                image = image.convert("RGBA")
                image.thumbnail((side - 4, side - 4))
                page.paste(image, (x + place * side, y + LINE), image)
    return page


def drawings(first: int, count: int) -> Image.Image:
    """Names in all their styles."""
    found: dict[str, dict[str, str]] = {}
    for row in read_jsonl(CORPUS / CONCEPTS, "corpus-images"):
        found.setdefault(row["name"], {})[row.get("style", "")] = row["file"]
    styles = [style for style in ("", *STYLES) if any(style in files for files in found.values())]
    cells = [
        (name, [Image.open(CORPUS / files[style]) if style in files else None for style in styles])
        for name, files in islice(found.items(), first, first + count)
    ]
    return sheet(cells, 8, 44)


def pictures(seed: int) -> Image.Image:
    """For each style four training pictures and four of held-out drawings, then scenes."""
    rng = random.Random(seed)
    train, test = list(islice(read_shards(SHARDS, "train"), READ)), list(read_shards(SHARDS, "test"))
    chosen: list[dict[str, Any]] = []
    for style in STYLES:
        for samples, unseen in ((train, False), (test, True)):
            some = [s for s in samples if s["json"]["kind"] == "single" and _is(s, style, unseen)]
            chosen += rng.sample(some, min(4, len(some)))
    for samples in (train, test):
        scenes = [s for s in samples if s["json"]["kind"] == "scene"]
        chosen += rng.sample(scenes, min(4, len(scenes)))
    return sheet([(s["json"]["caption"], [Image.open(io.BytesIO(s["png"]))]) for s in chosen], 8, 128)


def _is(sample: dict[str, Any], style: str, unseen: bool) -> bool:
    thing = sample["json"]["objects"][0]
    return thing.get("style") == style and thing.get("unseen") is unseen


def main() -> None:
    """Make a sheet."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.contact_sheet", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("what", choices=("drawings", "pictures"))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=112)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("build/sheet.png"))
    args = parser.parse_args()
    page = drawings(args.first, args.count) if args.what == "drawings" else pictures(args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    page.quantize(256).save(args.out, optimize=True)
    print(f"{args.out}: {page.width} x {page.height}")


if __name__ == "__main__":
    main()
