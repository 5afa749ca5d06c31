"""What is said and asked about a picture. Pure functions of the picture's description and a random state.

A description is what a picture's ``.json`` holds: ``layout`` (``single``, ``count``, ``row``, ``column`` or
``grid``), ``background`` (a colour's name or None) and ``objects``, each with ``name``, ``group``, ``colour`` and
``box`` [x0, y0, x1, y1] in 0..1 with y pointing down. Objects stand in reading order.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from muomni.data.concepts import GROUPS, Concept, a, by_name
from muomni.data.grammar import (
    NAME_QUESTIONS,
    NUMBERS,
    OPEN_QUESTIONS,
    OPPOSITE,
    PAIR_QUESTIONS,
    PLACE_QUESTIONS,
    PLACES,
    QA,
    RELATIONS,
    content_key,
    fill,
    listing,
    sentence,
)

Picture = Mapping[str, Any]


def centre(item: Mapping[str, Any]) -> tuple[float, float]:
    """Middle of an object's box, x to the right and y down, in 0..1."""
    x0, y0, x1, y1 = item["box"]
    return (x0 + x1) / 2, (y0 + y1) / 2


def places(picture: Picture) -> list[str]:
    """A key of `PLACES` for each object of a row, column or grid."""
    objects = picture["objects"]
    if picture["layout"] == "grid":
        # Cells are corners; an empty one leaves the others where they are.
        return [f"{'top' if y < 0.5 else 'bottom'} {'left' if x < 0.5 else 'right'}" for x, y in map(centre, objects)]
    ends = ("left", "right") if picture["layout"] == "row" else ("top", "bottom")
    return [ends[0], *["middle"] * (len(objects) - 2), ends[1]]


def counted(name: str, number: int) -> str:
    """``a dog`` or ``three dogs``; a name that is not in the table can only be alone."""
    return a(name) if number == 1 else f"{NUMBERS[number]} {by_name()[name].plural}"


def contents(picture: Picture) -> list[str]:
    """What is there, in reading order: ``["a red heart", "two dogs"]``."""
    counts = Counter(item["name"] for item in picture["objects"])
    return [counted(name, number) for name, number in counts.items()]


def caption(picture: Picture, rng: random.Random) -> str:
    """A noun phrase for the picture: ``a dog``, ``three cats on a yellow background``, ``a cat above an apple``."""
    objects, layout = picture["objects"], picture["layout"]
    if layout in ("single", "count"):
        text = contents(picture)[0]
        if picture["background"] and rng.random() < 0.3:
            text += f" on a {picture['background']} background"
        return text
    if len(objects) == 2:
        first, second = (item["name"] for item in objects)
        relation = "left-of" if layout == "row" else "above"
        if rng.random() < 0.5:
            first, second, relation = second, first, OPPOSITE[relation]
        return f"{a(first)} {RELATIONS[relation]} {a(second)}"
    if rng.random() < 0.5:
        return listing(contents(picture))
    return listing([f"{a(item['name'])} {PLACES[place]}" for item, place in zip(objects, places(picture), strict=True)])


def distractors(picture: Picture, concepts: Sequence[Concept], rng: random.Random, number: int) -> list[str]:
    """Names that are not in the picture: half of them like what is there (same group), half anything."""
    there = {item["name"] for item in picture["objects"]}
    groups = {item["group"] for item in picture["objects"]}
    others = [concept for concept in concepts if concept.name not in there]
    near = [concept for concept in others if concept.group in groups]
    chosen: list[str] = []
    while len(chosen) < min(number, len(others)):
        name = rng.choice(near if near and rng.random() < 0.5 else others).name
        if name not in chosen:
            chosen.append(name)
    return chosen


def _qa(kind: str, question: str, answer: str, *targets: str) -> QA:
    return QA(kind, question, sentence(answer), targets, content_key(question))


def _about_all(picture: Picture, rng: random.Random) -> list[QA]:
    """Questions that name nothing."""
    objects, layout, found = picture["objects"], picture["layout"], []
    there = contents(picture)
    if layout == "single":
        item = objects[0]
        found.append(_qa("what", rng.choice(OPEN_QUESTIONS["what"]), f"It is {there[0]}.", item["name"]))
        if item["group"] in GROUPS:  # pictures of one's own have none
            group, question = GROUPS[item["group"]][0], rng.choice(OPEN_QUESTIONS["group"])
            found.append(_qa("group", question, f"It is {group}.", group.split(" ", 1)[1]))
    else:
        names = tuple(dict.fromkeys(item["name"] for item in objects))
        found.append(_qa("list", rng.choice(OPEN_QUESTIONS["list"]), f"I see {listing(there)}.", *names))
        number = NUMBERS[len(objects)]
        question = rng.choice(OPEN_QUESTIONS["total"])
        found.append(QA("count", question, f"There are {number} things.", (number,), content_key(question)))
    if picture["background"]:
        background = picture["background"]
        question = rng.choice(OPEN_QUESTIONS["background"])
        found.append(_qa("background", question, f"The background is {background}.", background))
    return found


def _about_places(picture: Picture, rng: random.Random) -> list[QA]:
    """Where things are: by place, by a neighbour, and whether one is beside another."""
    objects, layout, found = picture["objects"], picture["layout"], []
    for item, place in zip(objects, places(picture), strict=True):
        name, where = item["name"], PLACES[place]
        question = rng.choice(PLACE_QUESTIONS).format(place=where)
        kind = "place" if " " in place or place == "middle" else f"where-{place}"
        found.append(_qa(kind, question, f"The {name} is {where}.", name))
        question = fill(rng.choice(NAME_QUESTIONS["where"]), name)
        found.append(_qa("where", question, f"The {name} is {where}.", place))
    if layout == "grid" or len(objects) != 2:
        return found
    first, second = (item["name"] for item in objects)
    forward = "left-of" if layout == "row" else "above"
    for name, other, relation in ((first, second, forward), (second, first, OPPOSITE[forward])):
        said = f"the {name} is {RELATIONS[relation]} the {other}."
        question = fill(rng.choice(NAME_QUESTIONS[relation]), other)
        found.append(_qa(relation, question, said, name))
        form = rng.choice(PAIR_QUESTIONS["relation"])
        question = form.format(x=name, y=other, relation=RELATIONS[relation])
        found.append(_qa("relation", question, f"Yes, {said}", "yes"))
        question = form.format(x=name, y=other, relation=RELATIONS[OPPOSITE[relation]])
        found.append(_qa("relation", question, f"No, {said}", "no"))
    return found


def _about_names(picture: Picture, concepts: Sequence[Concept], rng: random.Random) -> list[QA]:
    """Whether things are there, how many, and of what colour."""
    counts = Counter(item["name"] for item in picture["objects"])
    found = []
    for name in counts:
        question = fill(rng.choice(NAME_QUESTIONS["exists"]), name)
        found.append(_qa("exists", question, f"Yes, there is {a(name)}.", "yes"))
    for name in distractors(picture, concepts, rng, len(counts)):
        question = fill(rng.choice(NAME_QUESTIONS["exists"]), name)
        found.append(_qa("exists", question, f"No, there is no {name}.", "no"))
    if picture["layout"] != "single":
        for name, number in counts.items():
            question = fill(rng.choice(NAME_QUESTIONS["count"]), name)
            said = f"There is one {name}." if number == 1 else f"There are {counted(name, number)}."
            found.append(_qa("count", question, said, NUMBERS[number]))
    shapes = [by_name()[item["name"]] for item in picture["objects"] if item["colour"]]
    for shape in dict.fromkeys(shapes):
        if sum(other.noun == shape.noun for other in set(shapes)) > 1:
            continue  # "the heart" would be two of them
        several = counts[shape.name] > 1
        form = rng.choice([form for form in NAME_QUESTIONS["colour"] if ("{s}" in form) == several])
        subject = f"{shape.noun}s are" if several else f"{shape.noun} is"
        colour = str(shape.colour)
        found.append(_qa("colour", fill(form, shape.noun), f"The {subject} {colour}.", colour))
    return found


def scene_questions(picture: Picture, rng: random.Random, concepts: Sequence[Concept]) -> list[QA]:
    """Every kind of question that the picture answers, each in one of its wordings.

    As many questions for yes as for no. A conversation for training may only use those whose key is in training
    (`muomni.data.splits.combination_split`): a spoken question that is held out is then unheard and unread.

    Args:
        picture: the description.
        rng: chooses wordings and what is asked for in vain.
        concepts: what may be asked for in vain.
    """
    found = _about_all(picture, rng)
    if picture["layout"] in ("row", "column", "grid"):
        found += _about_places(picture, rng)
    return found + _about_names(picture, concepts, rng)
