"""What is asked and said: true of the picture or the table, balanced, and split by what it is about."""

import random
from collections import Counter
from functools import partial
from typing import Any

import pytest
from PIL import Image

from muomni.data.concepts import GROUPS, by_name, groups_apart, select_concepts
from muomni.data.grammar import NUMBERS, QA, content_key, is_right, names_in, words_of
from muomni.data.scenes import Composer, Drawing, combinations_of
from muomni.data.sentences import caption, scene_questions
from muomni.data.splits import TRAIN_ONLY, combination_split
from muomni.data.spoken import spoken_sentences, unseen_words
from muomni.data.world import fact_documents, world_questions
from muomni.errors import UserError

SEED = 1
CONCEPTS = select_concepts(200, 60)
SPLIT = partial(combination_split, seed=SEED)


def pictures(number: int, split: str = "train") -> list[dict[str, Any]]:
    """Descriptions of scenes and single pictures."""
    square = [Drawing(Image.new("RGBA", (30, 30), "red"))]
    composer = Composer({concept.name: square for concept in CONCEPTS}, 64)
    allowed = combinations_of(CONCEPTS, split, SEED)
    made = [composer.scene(allowed, random.Random(i))[1] for i in range(number)]
    return made + [composer.single(concept, random.Random(i))[1] for i, concept in enumerate(CONCEPTS[: number // 2])]


def truth(qa: QA, picture: dict[str, Any]) -> set[str]:
    """The facts that answer a question, found from the boxes alone."""
    at = {item["name"]: ((b := item["box"])[0] + b[2], b[1] + b[3]) for item in picture["objects"]}
    counts = Counter(item["name"] for item in picture["objects"])
    asked, words = names_in(qa.question), qa.question.lower()
    is_left = {(p, q) for p in at for q in at if at[p][0] < at[q][0] - 0.2}
    is_above = {(p, q) for p in at for q in at if at[p][1] < at[q][1] - 0.2}
    beside = {
        "to the left of": is_left,
        "to the right of": {(q, p) for p, q in is_left},
        "above": is_above,
        "below": {(q, p) for p, q in is_above},
    }
    if qa.kind == "exists":
        return {"yes" if asked[0] in at else "no"}
    if qa.kind == "count":
        return {NUMBERS[counts[asked[0]] if asked else sum(counts.values())]}
    if qa.kind == "background":
        return {picture["background"]}
    if qa.kind == "colour":
        return {str(by_name()[name].colour) for name in at if by_name()[name].noun == asked[0]}
    if qa.kind in ("what", "list"):
        return set(at)
    if qa.kind == "group":
        (item,) = picture["objects"]
        return {GROUPS[by_name()[item["name"]].group][0].split(" ", 1)[1]}
    relation = next((pairs for said, pairs in beside.items() if said in words), set())
    if qa.kind == "relation":
        return {"yes" if (asked[0], asked[1]) in relation else "no"}
    if qa.kind in ("left-of", "right-of", "above", "below"):
        return {name for name in at if (name, asked[0]) in relation}
    # By place: the outermost thing in that direction, the middle between the two others.
    by_x, by_y = sorted(at, key=lambda name: at[name][0]), sorted(at, key=lambda name: at[name][1])
    ordered = by_x if picture["layout"] == "row" else by_y
    named = {"left": ordered[0], "top": ordered[0], "right": ordered[-1], "bottom": ordered[-1], "middle": ordered[1]}
    if picture["layout"] == "grid":
        named = {f"{'top' if y < 1 else 'bottom'} {'left' if x < 1 else 'right'}": name for name, (x, y) in at.items()}
    else:
        valid = ("left", "middle", "right") if picture["layout"] == "row" else ("top", "middle", "bottom")
        named = {place: name for place, name in named.items() if place in valid}
        if len(at) == 2:
            named.pop("middle")
    if qa.kind == "where":
        return {place for place, name in named.items() if name == asked[0]}
    return {name for place, name in named.items() if f" {place}?" in words or f" {place} " in words}


def test_answers_about_pictures_are_true_and_count_as_right() -> None:
    kinds: Counter[str] = Counter()
    for number, picture in enumerate(pictures(160)):
        for qa in scene_questions(picture, random.Random(number), CONCEPTS):
            assert set(qa.targets) == truth(qa, picture), (number, qa, picture)
            assert is_right(qa, qa.answer), qa
            kinds[qa.kind] += 1
    wanted = "what list group background count exists colour where where-left where-right where-top where-bottom"
    assert set(kinds) == {*wanted.split(), "left-of", "right-of", "above", "below", "relation", "place"}


def test_another_pictures_answer_is_wrong() -> None:
    asked = [qa for picture in pictures(60) for qa in scene_questions(picture, random.Random(0), CONCEPTS)]
    for qa in asked:
        others = [other for other in asked if other.kind == qa.kind and not set(other.targets) & set(qa.targets)]
        assert not any(is_right(qa, other.answer) for other in others), qa
    assert not any(is_right(qa, answer) for qa in asked for answer in ("", "I do not know.", "?"))


def test_scoring_reads_whole_names_and_the_first() -> None:
    qa = QA("what", "What is this?", "It is a dog.", ("dog",), "")
    assert is_right(qa, "a dog") and is_right(qa, "It is a dog") and not is_right(qa, "It is a hot dog.")
    assert not is_right(qa, "It is a cat, not a dog.")
    listed = QA("list", "What do you see?", "", ("dog", "red heart"), "")
    assert is_right(listed, "A red heart and a dog.") and not is_right(listed, "a dog, a cat and a red heart")
    place = QA("where", "Where is the dog?", "", ("top left",), "")
    assert is_right(place, "The dog is at the top left.") and not is_right(place, "The dog is on the left.")


def test_yes_and_no_are_balanced_and_distractors_plausible() -> None:
    asked = [(p, qa) for i, p in enumerate(pictures(150)) for qa in scene_questions(p, random.Random(i), CONCEPTS)]
    for kind in ("exists", "relation"):
        answers = Counter(qa.target for _, qa in asked if qa.kind == kind)
        assert answers["yes"] == answers["no"] > 50
    absent = [(p, names_in(qa.question)[0]) for p, qa in asked if qa.kind == "exists" and qa.target == "no"]
    alike = [by_name()[name].group in {item["group"] for item in p["objects"]} for p, name in absent]
    assert 0.3 < sum(alike) / len(alike) < 0.9


def test_world_questions_are_true_balanced_and_split() -> None:
    asked = world_questions(CONCEPTS, random.Random(4))
    table = by_name()
    for qa in asked:
        names = names_in(qa.question)
        assert is_right(qa, qa.answer) and qa.key == content_key(qa.question), qa
        if qa.kind in ("fly", "eat", "drink", "water", "wheels", "alive"):
            assert qa.target == ("yes" if table[names[0]].has(qa.kind) else "no")
        if qa.kind == "bigger":
            other = next(name for name in names if name != qa.target)
            assert table[qa.target].size >= table[other].size + 2
        if qa.kind == "which":
            assert groups_apart(*(table[name].group for name in names))
    for kind in ("isa", "animal", "fly", "eat", "drink", "water", "wheels", "alive"):
        answers = Counter(qa.target for qa in asked if qa.kind == kind)
        assert answers["yes"] == answers["no"] > 0, kind
    splits = Counter(combination_split(qa.key, SEED) for qa in asked)
    assert 0.08 < splits["test"] / len(asked) < 0.2 and splits["valid"] > 0
    kinds = {qa.kind for qa in asked if combination_split(qa.key, SEED) == "test"}
    assert {"kind", "isa", "alive", "bigger", "which"} <= kinds
    again = world_questions(CONCEPTS, random.Random(4))
    assert asked == again != world_questions(CONCEPTS, random.Random(5))


def test_all_wordings_of_a_question_have_one_key() -> None:
    assert content_key("What kind of thing is a banana?") == content_key("What is a banana?") == "kind|banana"
    assert content_key("Can you see an apple?") == content_key("Is there an apple in the picture?") == "exists|apple"
    assert content_key("A cat above two dogs") == content_key("The dog is next to a cat.") == "cat|dog"
    assert content_key("There are three dogs.") == content_key("three dogs on a pink background") == "dog*3"
    assert content_key("I see a dog, a red heart and a cat.") == "cat|dog|red heart"
    for text in ("What is this?", "It is a dog.", "Yes, there is a dog.", "The heart is red.", "A dog is a mammal."):
        assert content_key(text).startswith(TRAIN_ONLY), text


def test_answers_never_bring_a_held_out_key_into_training() -> None:
    """What every picture needs is for training, or about the very combination that the picture shows."""
    for number, picture in enumerate(pictures(80)):
        rng = random.Random(number)
        said = [qa.answer for qa in scene_questions(picture, rng, CONCEPTS)] + [caption(picture, rng)]
        for text in said:
            key = content_key(text)
            names = {item["name"] for item in picture["objects"]}
            assert key.startswith(TRAIN_ONLY) or set(names_in(text)) <= names, text
            assert SPLIT(key) == "train", (text, key)
    for qa in world_questions(CONCEPTS, random.Random(1), pairs=100):
        assert content_key(qa.answer).startswith(TRAIN_ONLY) or content_key(qa.answer) == qa.key, qa


@pytest.mark.parametrize("names, scenes, n", [(200, 60, 1500), (30, 15, 250)])
def test_spoken_sentences_are_split_without_near_copies(names: int, scenes: int, n: int) -> None:
    made = spoken_sentences(select_concepts(names, scenes), random.Random(2), n, SPLIT)
    assert len(made) == n == len({item.text for item in made})
    by_split = {s: [item for item in made if item.split == s] for s in ("train", "valid", "test")}
    assert len(by_split["test"]) >= 0.03 * n and len(by_split["valid"]) >= 0.005 * n
    keys = {split: {content_key(item.text) for item in items} for split, items in by_split.items()}
    assert not keys["train"] & (keys["valid"] | keys["test"]) and not keys["valid"] & keys["test"]
    assert not unseen_words(made)
    assert made == spoken_sentences(select_concepts(names, scenes), random.Random(2), n, SPLIT)


def test_spoken_sentences_cover_the_names_and_vary_in_length() -> None:
    made = spoken_sentences(CONCEPTS, random.Random(3), 2000, SPLIT)
    training = {name for item in made if item.split == "train" for name in names_in(item.text)}
    assert training >= {concept.name for concept in CONCEPTS}
    spoken = {word for item in made if item.split == "train" for word in words_of(item.text)}
    assert spoken >= {word for concept in CONCEPTS for word in words_of(concept.plural)}
    assert spoken >= {concept.colour for concept in CONCEPTS if concept.colour} | {*NUMBERS[2:5]}
    lengths = [len(words_of(item.text)) for item in made]
    assert min(lengths) <= 3 and max(lengths) >= 12 and 5 <= sum(lengths) / len(lengths) <= 9
    assert {"pair", "question", "answer", "count", "caption", "triple", "statement"} == {item.kind for item in made}


def test_more_sentences_than_there_are_is_an_error() -> None:
    with pytest.raises(UserError, match="different sentences"):
        spoken_sentences(select_concepts(10, 3)[:2], random.Random(1), 5000, SPLIT)


def test_facts_in_prose_are_true_and_for_training_only() -> None:
    documents = fact_documents(CONCEPTS, random.Random(1), SPLIT)
    assert documents == fact_documents(CONCEPTS, random.Random(1), SPLIT)
    text = " ".join(documents)
    for concept in CONCEPTS:
        assert f"{concept.plural} are ".lower() in text.lower(), concept.name
    for document in documents:
        for line in document.rstrip(".").split(". "):
            assert SPLIT(content_key(line)) == "train", line
    assert "Penguins can fly" not in text and "A dog lives in water" not in text
