"""Composed pictures: what their descriptions say is what is drawn, and held-out combinations stay out of training."""

import random
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from muomni.data.concepts import Concept, select_concepts
from muomni.data.grammar import content_key
from muomni.data.scenes import MAX_COUNT, SINGLE_SCALE, Composer, Drawing, combinations_of
from muomni.data.splits import TRAIN_ONLY, combination_split, pair_key
from muomni.errors import UserError

SIZE = 96
CONCEPTS = select_concepts(80, 40)
SEED = 3


def stripes(number: int) -> Drawing:
    """A drawing of its own form: what is drawn touches all four edges of the image."""
    image = Image.new("RGBA", (160, 90 + number))
    ImageDraw.Draw(image).ellipse((0, 0, 159, 89 + number), fill=(10, 20, 30, 255), outline=(0, 0, 0, 255), width=4)
    return Drawing(image)


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer({concept.name: [stripes(i)] for i, concept in enumerate(CONCEPTS)}, SIZE)


def overlap(one: list[float], two: list[float]) -> float:
    """Shared area, as a part of the smaller box."""
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (one, two))
    return max(0.0, width) * max(0.0, height) / smaller


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_scenes_only_combine_what_their_split_may(composer: Composer, split: str) -> None:
    allowed = combinations_of(CONCEPTS, split, SEED)
    layouts = set()
    for number in range(150):
        picture, described = composer.scene(allowed, random.Random(f"{split}:{number}"))
        names = [item["name"] for item in described["objects"]]
        layouts.add(described["layout"])
        if described["layout"] == "count":
            assert described["key"] == f"{names[0]}*{len(names)}" and 2 <= len(names) <= MAX_COUNT
            assert len(set(names)) == 1 and combination_split(described["key"], SEED) == split
        else:
            assert len(set(names)) == len(names)
            for pair in combinations(names, 2):
                assert combination_split(pair_key(*pair), SEED) == split
        # The caption speaks of the same combination, so a sentence of another split never describes the scene.
        assert content_key(described["caption"]) == described["key"]
        assert picture.mode == "RGB" and picture.size == (SIZE, SIZE)
    assert {"row", "column", "count"} <= layouts


def test_no_combination_is_in_two_splits() -> None:
    found = {split: combinations_of(CONCEPTS, split, SEED) for split in ("train", "valid", "test")}
    for one, two in combinations(found.values(), 2):
        assert not {frozenset(c.name for c in pair) for pair in one.pairs} & {
            frozenset(c.name for c in pair) for pair in two.pairs
        }
        assert not set(one.counts) & set(two.counts)
    assert sum(len(one.pairs) for one in found.values()) == 40 * 39 // 2


def test_boxes_hold_what_is_drawn_and_do_not_overlap(composer: Composer) -> None:
    allowed = combinations_of(CONCEPTS, "train", SEED)
    for number in range(200):
        picture, described = composer.scene(allowed, random.Random(number))
        boxes = [item["box"] for item in described["objects"]]
        # The drawings are darker than every background.
        dark = np.asarray(picture).max(axis=2) < 90
        outside = dark.copy()
        for box in boxes:
            assert 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1
            x0, y0, x1, y1 = (round(value * SIZE) for value in box)
            assert x1 - x0 >= 0.15 * SIZE, f"seed {number}: too small"
            inside = dark[y0:y1, x0:x1]
            # It reaches all four edges but for a faint pixel.
            assert inside[:2].any() and inside[-2:].any() and inside[:, :2].any() and inside[:, -2:].any(), number
            outside[y0:y1, x0:x1] = False
        assert not outside.any(), f"seed {number}: drawn outside its box"
        assert all(overlap(*pair) < 0.02 for pair in combinations(boxes, 2)), f"seed {number}"


def test_rows_and_columns_are_what_they_are_called(composer: Composer) -> None:
    allowed = combinations_of(CONCEPTS, "train", SEED)
    for number in range(200):
        _, described = composer.scene(allowed, random.Random(number))
        middles = [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in (o["box"] for o in described["objects"])]
        for (x, y), (u, v) in zip(middles, middles[1:], strict=False):
            if described["layout"] == "row":
                assert u - x > 0.15 and u - x > abs(v - y), f"seed {number}"
            if described["layout"] == "column":
                assert v - y > 0.15 and v - y > abs(u - x), f"seed {number}"


def test_singles_vary_in_scale_place_and_background_and_stay_whole(composer: Composer) -> None:
    sides, backgrounds, places = [], set(), set()
    for number in range(200):
        _, described = composer.single(CONCEPTS[number % 5], random.Random(number))
        (item,) = described["objects"]
        x0, y0, x1, y1 = item["box"]
        sides.append(max(x1 - x0, y1 - y0))
        assert x0 >= 0 and y0 >= 0 and x1 <= 1 and y1 <= 1
        backgrounds.add(described["background"])
        places.add((x0 < 0.2, y0 < 0.2))
        assert described["key"] == f"{TRAIN_ONLY}{item['name']}" and described["layout"] == "single"
    assert min(sides) < SINGLE_SCALE[0] + 0.05 and max(sides) > SINGLE_SCALE[1] - 0.05
    assert backgrounds == {None, "white", "gray", "yellow", "pink", "green", "blue"} and len(places) == 4


def test_a_picture_depends_on_its_random_state_only(composer: Composer) -> None:
    allowed = combinations_of(CONCEPTS, "train", SEED)
    one, about_one = composer.scene(allowed, random.Random(5))
    composer.single(CONCEPTS[0], random.Random(6))
    two, about_two = composer.scene(allowed, random.Random(5))
    other, _ = composer.scene(allowed, random.Random(7))
    assert one.tobytes() == two.tobytes() and about_one == about_two
    assert one.tobytes() != other.tobytes()


def test_too_few_concepts_for_a_split_is_said() -> None:
    two: list[Concept] = [concept for concept in CONCEPTS if concept.scene][:2]
    splits = []
    for split in ("train", "valid", "test"):
        try:
            combinations_of(two, split, SEED)
        except UserError as error:
            assert "images.scene_names" in str(error) and split in str(error)
            splits.append(split)
    assert len(splits) == 2
