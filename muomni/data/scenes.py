"""Pictures composed of drawings: one drawing alone, or scenes of several with places, counts and colours.

Every picture comes from its own random state, so that a picture does not depend on which process composes it or on
what was composed before. Scenes only combine concepts whose combination belongs to the asked split.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from muomni.data.concepts import Concept
from muomni.data.sentences import caption
from muomni.data.splits import TRAIN_ONLY, combination_key, combination_split
from muomni.errors import UserError

# Pastel centres of the named backgrounds (RGB); a picture varies them a little.
BACKGROUND_RGB = {
    "white": (250, 250, 250),
    "gray": (196, 196, 200),
    "yellow": (252, 238, 158),
    "pink": (252, 200, 216),
    "green": (192, 232, 190),
    "blue": (184, 208, 250),
}
NAMED_SHARE = 0.75  # of single pictures; the others have any colour at all. Scenes always have a named one.
GRADIENT_SHARE = 0.4
SINGLE_SCALE = (0.45, 1.0)  # longest side of a drawing, in picture sides
SINGLE_TURN = 20.0  # degrees, to either side
SCENE_TURN = 10.0
MAX_COUNT = 4
# How often each type of scene is drawn, if the split has combinations for it.
SCENE_TYPES = {"pair": 35, "shape": 15, "count": 25, "three": 25}
LEVELS = (160, 120, 84, 60, 42)  # pixels: prescaled copies, so that a small drawing is cheap and does not alias
VISIBLE = [255 * (alpha > 24) for alpha in range(256)]  # fainter edges do not count for a box
Cell = tuple[float, float, float, float]
Box = tuple[float, float, float, float]
Placed = tuple[Concept, Box, dict[str, Any]]  # what is where, and `Drawing.about`


class Drawing:
    """A drawing with a transparent background, at several sizes.

    Args:
        image: RGBA, cut to what is drawn; or its file, which is read for each size that is used: sizes are kept, and
            of thousands of drawings both would fill the memory.
        about: what a description tells of it beside the concept, for example its style.
    """

    def __init__(self, image: Image.Image | Path, about: dict[str, Any] | None = None) -> None:
        self._image, self.about = image, about or {}
        self._levels: dict[int, Image.Image] = {}

    @property
    def image(self) -> Image.Image:
        """The drawing as it is kept.

        Raises:
            UserError: if its file is missing or damaged.
        """
        if isinstance(self._image, Image.Image):
            return self._image
        try:
            with Image.open(self._image) as image:
                return image.convert("RGBA")
        except (OSError, ValueError) as error:
            again = "run `dvc repro --force corpus-images`"
            raise UserError(f"{self._image}: cannot be read ({error}); {again}") from None

    def _level(self, side: int) -> Image.Image:
        """The smallest copy that is not smaller than asked, with premultiplied colours, as mixing needs them."""
        largest = next((level for level in reversed(LEVELS) if level >= side), LEVELS[0])
        if largest not in self._levels:
            image = self.image
            scale = largest / max(image.size)
            size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
            level = image.resize(size, Image.Resampling.LANCZOS).convert("RGBa")
            # An empty edge, so that what is drawn up to the edge still fades into the background when turned.
            self._levels[largest] = ImageOps.expand(level, 1)
        return self._levels[largest]

    def render(self, side: int, turn: float) -> Image.Image:
        """The drawing turned by `turn` degrees, its longest side then `side` pixels, cut to what is drawn."""
        level = self._level(side)
        sine, cosine = math.sin(math.radians(turn)), math.cos(math.radians(turn))
        width = level.width * cosine + level.height * abs(sine)
        height = level.width * abs(sine) + level.height * cosine
        step = max(width, height) / side  # pixels of the level for one of the result
        size = math.ceil(width / step), math.ceil(height / step)
        # PIL asks where in the level a result's pixel comes from; the middles of both belong together.
        a, b = step * cosine, -step * sine
        c = level.width / 2 - (a * size[0] + b * size[1]) / 2
        f = level.height / 2 - (-b * size[0] + a * size[1]) / 2
        affine = (a, b, c, -b, a, f)
        turned = level.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR).convert("RGBA")
        found = turned.getchannel("A").point(VISIBLE).getbbox()
        return turned.crop(found) if found else turned


@dataclass(frozen=True)
class Combinations:
    """Which concepts a split's scenes may combine.

    Attributes:
        pairs: two concepts.
        shape_pairs: pairs of one coloured shape and something else.
        counts: a concept and how many of it.
        threes: three concepts, all pairs of which are in the split.
    """

    pairs: list[tuple[Concept, ...]]
    shape_pairs: list[tuple[Concept, ...]]
    counts: list[tuple[Concept, int]]
    threes: list[tuple[Concept, ...]]

    def by_type(self) -> dict[str, list[tuple[Concept, ...]]]:
        """The combinations of different concepts by type of scene."""
        return {"pair": self.pairs, "shape": self.shape_pairs, "three": self.threes}


def combinations_of(concepts: Sequence[Concept], split: str, seed: int) -> Combinations:
    """List a split's combinations of the concepts that scenes may use.

    Raises:
        UserError: if the split has no pair at all, which happens with very few concepts.
    """
    scene = sorted((concept for concept in concepts if concept.scene), key=lambda concept: concept.name)

    def ours(key: str) -> bool:
        return combination_split(key, seed) == split

    pairs = [pair for pair in combinations(scene, 2) if ours(combination_key(c.name for c in pair))]
    if not pairs:
        raise UserError(
            f"images.scene_names: {len(scene)} concepts give no pair for the {split} split; use more of them"
        )
    linked = {(first.name, second.name) for first, second in pairs}
    return Combinations(
        pairs=list(pairs),
        shape_pairs=[pair for pair in pairs if sum(c.colour is not None for c in pair) == 1],
        counts=[(c, n) for c in scene for n in range(2, MAX_COUNT + 1) if ours(f"{c.name}*{n}")],
        threes=[
            (*pair, third)
            for pair in pairs
            for third in scene
            if (pair[0].name, third.name) in linked and (pair[1].name, third.name) in linked
        ],
    )


def _background(size: int, name: str | None, rng: random.Random) -> Image.Image:
    """Plain, or a soft gradient in any of four directions, of a named or of any colour."""
    if name is None:
        colour = tuple(rng.randint(40, 255) for _ in range(3))
    else:
        colour = tuple(min(255, max(0, value + rng.randint(-8, 8))) for value in BACKGROUND_RGB[name])
    plain = Image.new("RGB", (size, size), colour)
    if rng.random() >= GRADIENT_SHARE:
        return plain
    # A named colour only becomes a little lighter or darker, so that its name stays right.
    fades = [rng.choice((-60, 60)) for _ in colour] if name is None else [rng.choice((-18, 18))] * 3
    faded = tuple(min(255, max(0, value + fade)) for value, fade in zip(colour, fades, strict=True))
    other = Image.new("RGB", (size, size), faded)
    mask = Image.linear_gradient("L").resize((size, size)).rotate(90 * rng.randrange(4))
    return Image.composite(other, plain, mask)


class Composer:
    """Composes pictures from drawings.

    Args:
        drawings: drawings of each concept by name, usually one.
        size: the pictures' width and height in pixels.
    """

    def __init__(self, drawings: Mapping[str, Sequence[Drawing]], size: int) -> None:
        self.drawings, self.size = drawings, size

    def single(self, concept: Concept, rng: random.Random) -> tuple[Image.Image, dict[str, Any]]:
        """One drawing of any scale, turn and place.

        Returns:
            An RGB picture and its description (`muomni.data.sentences`).
        """
        name = rng.choice(list(BACKGROUND_RGB)) if rng.random() < NAMED_SHARE else None
        side = rng.uniform(*SINGLE_SCALE)
        picture = _background(self.size, name, rng)
        cell = (0.0, 0.0, 1.0, 1.0)
        placed = self._paste(picture, concept, cell, side, rng.uniform(-SINGLE_TURN, SINGLE_TURN), rng)
        described = self._describe("single", "single", name, [placed], rng)
        return picture, described | {"key": f"{TRAIN_ONLY}{concept.name}"}

    def scene(self, allowed: Combinations, rng: random.Random) -> tuple[Image.Image, dict[str, Any]]:
        """Several drawings of one, two or three concepts.

        Args:
            allowed: the split's combinations.
            rng: the picture's own random state.

        Returns:
            An RGB picture and its description.
        """
        different = allowed.by_type()
        types = [kind for kind in SCENE_TYPES if (allowed.counts if kind == "count" else different[kind])]
        kind = rng.choices(types, [SCENE_TYPES[name] for name in types])[0]
        background = rng.choice(list(BACKGROUND_RGB))
        picture = _background(self.size, background, rng)
        if kind == "count":
            concept, number = rng.choice(allowed.counts)
            side = rng.uniform(0.26, 0.46 if number == 2 else 0.4)
            placed = self._scatter(picture, concept, number, side, rng)
            described = self._describe("scene", "count", background, placed, rng)
            return picture, described | {"key": f"{concept.name}*{number}"}
        concepts = list(rng.choice(different[kind]))
        rng.shuffle(concepts)
        layout, cells = _cells(len(concepts), rng)
        placed = []
        for concept, cell in zip(concepts, cells, strict=True):
            side = min(cell[2] - cell[0], cell[3] - cell[1]) * rng.uniform(0.8, 1.0)
            turn = rng.uniform(-SCENE_TURN, SCENE_TURN)
            placed.append(self._paste(picture, concept, cell, side, turn, rng))
        described = self._describe("scene", layout, background, placed, rng)
        return picture, described | {"key": combination_key(concept.name for concept in concepts)}

    def _paste(
        self, picture: Image.Image, concept: Concept, cell: Cell, side: float, turn: float, rng: random.Random
    ) -> Placed:
        """Draw within a cell (in picture sides, as is `side`), at a random place of it."""
        drawing = rng.choice(self.drawings[concept.name])
        image = drawing.render(max(8, round(side * self.size)), turn)
        x0, y0, x1, y1 = (round(value * self.size) for value in cell)
        x = x0 + round(rng.random() * max(0, x1 - x0 - image.width))
        y = y0 + round(rng.random() * max(0, y1 - y0 - image.height))
        picture.paste(image, (x, y), image)
        corners = (x, y, min(self.size, x + image.width), min(self.size, y + image.height))
        left, top, right, bottom = (round(value / self.size, 4) for value in corners)
        return concept, (left, top, right, bottom), drawing.about

    def _scatter(
        self, picture: Image.Image, concept: Concept, number: int, side: float, rng: random.Random
    ) -> list[Placed]:
        """Draw a concept several times, at places that do not overlap."""
        places: list[tuple[float, float]] = []
        gap = side + 0.02
        while len(places) < number:
            places = []
            for _ in range(12 * number):
                x, y = rng.uniform(0, 1 - side), rng.uniform(0, 1 - side)
                if all(max(abs(x - u), abs(y - v)) >= gap for u, v in places):
                    places.append((x, y))
                    if len(places) == number:
                        break
            else:
                side, gap = side * 0.95, side * 0.95 + 0.02  # too large to find room for all
        turns = [rng.uniform(-SCENE_TURN, SCENE_TURN) for _ in places]
        cells = [(x, y, x + side, y + side) for x, y in sorted(places, key=lambda place: place[::-1])]
        return [self._paste(picture, concept, cell, side, turn, rng) for cell, turn in zip(cells, turns, strict=True)]

    def _describe(
        self,
        kind: str,
        layout: str,
        background: str | None,
        placed: Sequence[Placed],
        rng: random.Random,
    ) -> dict[str, Any]:
        objects = [
            {"name": concept.name, "group": concept.group, "colour": concept.colour, "box": list(box)} | about
            for concept, box, about in placed
        ]
        described = {"kind": kind, "layout": layout, "background": background, "objects": objects}
        return described | {"caption": caption(described, rng)}


def _cells(number: int, rng: random.Random) -> tuple[str, list[Cell]]:
    """A layout for two or three objects and a cell for each, in reading order.

    Cells of a row lie side by side and only vary a little in height, so that nobody would call one above the other.
    """
    margin = 0.01
    if number == 3 and rng.random() < 0.5:
        corners = [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)]
        corners.remove(rng.choice(corners))
        return "grid", [(x + margin, y + margin, x + 0.5 - margin, y + 0.5 - margin) for x, y in corners]
    layout = rng.choice(("row", "column"))
    width, cells = 1 / number, []
    for index in range(number):
        low, high = index * width + margin, (index + 1) * width - margin
        across = rng.uniform(0.5 - width / 2 - 0.06, 0.5 - width / 2 + 0.06)
        cells.append((low, across, high, across + width))
    if layout == "column":
        cells = [(y0, x0, y1, x1) for x0, y0, x1, y1 in cells]
    return layout, cells
