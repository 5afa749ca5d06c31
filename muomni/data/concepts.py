"""The table of concepts: what can be drawn, what it is called, and a few facts about it.

``concepts.csv`` lists drawings of OpenMoji (CC BY-SA 4.0) that look unlike each other, with names that a voice can
say. Groups, sizes and attributes are ours; a fact one could argue about is marked and never asked.
"""

import csv
import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from importlib import resources

# group: (a member of it, members of it), as they stand in a sentence.
GROUPS = {
    "mammal": ("a mammal", "mammals"),
    "bird": ("a bird", "birds"),
    "reptile": ("a reptile", "reptiles"),
    "small animal": ("a small animal", "small animals"),
    "water animal": ("a water animal", "water animals"),
    "insect": ("an insect", "insects"),
    "fruit": ("a fruit", "fruits"),
    "vegetable": ("a vegetable", "vegetables"),
    "food": ("a food", "foods"),
    "sweet": ("a sweet", "sweets"),
    "drink": ("a drink", "drinks"),
    "plant": ("a plant", "plants"),
    "vehicle": ("a vehicle", "vehicles"),
    "building": ("a building", "buildings"),
    "clothing": ("a piece of clothing", "pieces of clothing"),
    "bag": ("a bag", "bags"),
    "instrument": ("an instrument", "instruments"),
    "tool": ("a tool", "tools"),
    "household": ("a household item", "household items"),
    "sport": ("a sports item", "sports items"),
    "toy": ("a toy", "toys"),
    "sky": ("a thing in the sky", "things in the sky"),
    "nature": ("a thing in nature", "things in nature"),
    "device": ("a device", "devices"),
    "office": ("an office item", "office items"),
    "treasure": ("a treasure", "treasures"),
    "body": ("a body part", "body parts"),
    "fantasy": ("a fantasy figure", "fantasy figures"),
    "medical": ("a medical item", "medical items"),
    "street": ("a thing on the street", "things on the street"),
    "shape": ("a shape", "shapes"),
}
ANIMALS = ("mammal", "bird", "reptile", "small animal", "water animal", "insect")
COLOURS = ("red", "yellow", "green", "blue", "purple", "black")

# What is in one family may be in several of its groups (a tool is at home in a household), so "Is a hammer a
# household item?" is not asked, unless a row of EXCLUSIVE says that nothing is in two of these groups.
FAMILIES = (
    ANIMALS,
    ("fruit", "vegetable", "food", "sweet", "drink", "plant"),
    (
        ("vehicle", "building", "clothing", "bag", "instrument", "tool", "household", "sport", "toy", "device")
        + ("office", "treasure", "medical", "street")
    ),
    ("sky", "nature"),
    ("fantasy",),
    ("body",),
    ("shape",),
)
EXCLUSIVE = (
    ("mammal", "bird", "reptile", "insect"),
    ("drink", "fruit", "sweet", "plant"),
    ("vehicle", "building", "clothing", "instrument"),
    ("building", "tool", "clothing"),
)
ARGUABLE = (
    {"fantasy", "mammal"},
    {"fantasy", "reptile"},
    {"fantasy", "small animal"},
    {"fantasy", "water animal"},
    {"body", "shape"},
    {"body", "food"},
    {"nature", "plant"},
    {"nature", "fruit"},
    {"nature", "vegetable"},
    {"nature", "treasure"},
    {"sky", "vehicle"},
    {"sky", "shape"},
    {"sky", "device"},
    {"sky", "toy"},
) + tuple({"nature", animal} for animal in ANIMALS)
_AN = ("hourglass",)
_A = ("unicorn",)


@dataclass(frozen=True)
class Concept:
    """One row of the table.

    Attributes:
        name: one to four lower-case words in the singular, for example ``red heart``.
        plural: several of them.
        group: a key of `GROUPS`.
        file: the drawing's file name without its ending: code points in hexadecimal digits.
        scene: whether scenes of several drawings use it.
        noun: the name without its colour, ``heart``; equal to the name where there is no colour in it.
        colour: one of `COLOURS` for shapes, else None.
        size: 1 (a coin) to 5 (a house), or 0 where it is not asked; two steps apart are beyond dispute.
        attributes: of ``fly``, ``water`` (lives in it), ``wheels``, ``eat``, ``drink``, ``alive``; one that could
            be argued about ends in ``?``.
    """

    name: str
    plural: str
    group: str
    file: str
    scene: bool
    noun: str
    colour: str | None
    size: int
    attributes: frozenset[str]

    @property
    def is_animal(self) -> bool:
        """Whether it belongs to one of the groups of animals."""
        return self.group in ANIMALS

    def has(self, attribute: str) -> bool | None:
        """Whether an attribute holds; None where one could argue."""
        return None if f"{attribute}?" in self.attributes else attribute in self.attributes


@cache
def load_concepts() -> tuple[Concept, ...]:
    """The whole table, in its order."""
    text = resources.files("muomni.data").joinpath("concepts.csv").read_text(encoding="utf-8")
    return tuple(
        Concept(
            name=row["name"],
            plural=row["plural"],
            group=row["group"],
            file=row["file"],
            scene=row["scene"] == "1",
            noun=row["noun"],
            colour=row["colour"] or None,
            size=int(row["size"]),
            attributes=frozenset(row["attributes"].split()),
        )
        for row in csv.DictReader(text.splitlines())
    )


@cache
def by_name() -> dict[str, Concept]:
    """The whole table by name."""
    return {concept.name: concept for concept in load_concepts()}


def _spread(concepts: list[Concept]) -> list[Concept]:
    """Sort so that any beginning of the list has all groups in proportion."""
    members: dict[str, list[Concept]] = defaultdict(list)
    for concept in concepts:
        members[concept.group].append(concept)
    places = {
        concept.name: (rank + 0.5) / len(group) for group in members.values() for rank, concept in enumerate(group)
    }
    return sorted(concepts, key=lambda concept: places[concept.name])


def select_concepts(names: int, scene_names: int) -> tuple[Concept, ...]:
    """Choose a smaller vocabulary, always the same one, with all groups in proportion.

    Args:
        names: how many concepts; all of them if there are fewer.
        scene_names: how many of these scenes may use.

    Returns:
        The concepts, scene concepts first; `Concept.scene` tells which they are.
    """
    table = list(load_concepts())
    scene = _spread([concept for concept in table if concept.scene])[: min(scene_names, names)]
    chosen = {concept.name for concept in scene}
    rest = _spread([concept for concept in table if concept.name not in chosen])[: names - len(scene)]
    return tuple(scene) + tuple(dataclasses.replace(concept, scene=False) for concept in rest)


def groups_apart(first: str, second: str) -> bool:
    """Whether nothing of the first group belongs to the second, beyond dispute."""
    if first == second or {first, second} in ARGUABLE:
        return False
    if any(first in row and second in row for row in EXCLUSIVE):
        return True
    return not any(first in family and second in family for family in FAMILIES)


def a(name: str) -> str:
    """The name with its indefinite article: ``an apple``."""
    first = name.split()[0]
    vowel = first in _AN or (first[0] in "aeiou" and first not in _A)
    return f"an {name}" if vowel else f"a {name}"
