"""Sentences of ordinary prose that the speech corpus says."""

import json
from pathlib import Path

import pytest

from muomni.data.grammar import words_of
from muomni.data.prose import plain_sentences, prose_sentences, with_rare_words_first
from muomni.errors import UserError


@pytest.mark.parametrize(
    "text",
    [
        "In 1865 the war was over.",
        "He asked Mr. Smith.",
        "The U.S. Senate met.",
        "The NATO allies met.",
        'He said "no" to it.',
        "Too short.",
        "no capital at the beginning.",
        "It has no end",
        "It costs five dollars (or six).",
        "J Smith was there too.",
        "A sentence of " + "many " * 20 + "words.",
        "We met -- as I said -- in May.",
    ],
)
def test_what_readers_would_say_differently_is_left_out(text: str) -> None:
    assert plain_sentences(text) == []


def test_sentences_are_found_in_running_text() -> None:
    text = (
        "My fellow citizens: We meet\nagain. Today's gap is large, isn't it? In 1990 it was not. I am a well-known man!"
    )
    assert plain_sentences(text) == [
        "My fellow citizens: We meet again.",
        "Today's gap is large, isn't it?",
        "I am a well-known man!",
    ]


def test_rare_words_come_first_and_nothing_is_lost() -> None:
    common = [f"We all agree with number {'abcdefghij'[i]} here." for i in range(10)]
    made = with_rare_words_first([*common, "Zebras gallop.", "We all agree here."])
    assert sorted(made) == sorted([*common, "Zebras gallop.", "We all agree here."])
    assert made.index("Zebras gallop.") < made.index("We all agree here.")


def corpus(folder: Path, sentences: dict[str, list[str]]) -> Path:
    for split, said in sentences.items():
        rows = [
            {"id": "a", "source": "sotu", "text": " ".join(said)},
            {"id": "b", "source": "facts", "text": "A dog is an animal."},
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


LETTERS = "abcdefghijklmnopqrstuvwxyz"
MANY = [f"The word {x}{y}x is said here." for x in LETTERS for y in LETTERS]


def test_prose_stays_in_the_split_of_its_document(tmp_path: Path) -> None:
    twice = "God bless our nation."
    folder = corpus(tmp_path, {"train": [*MANY[:400], twice], "valid": MANY[400:500], "test": [*MANY[500:600], twice]})
    made = prose_sentences(folder, 300, seed=3)
    assert len(made) == 300
    assert {item.split: sum(other.split == item.split for other in made) for item in made} == {
        "train": 240,
        "valid": 18,
        "test": 42,
    }
    homes = {"train": set(MANY[:400]), "valid": set(MANY[400:500]), "test": {*MANY[500:600], twice}}
    assert all(item.text in homes[item.split] for item in made)
    assert all(item.kind == "prose" and item.key == "prose:" + " ".join(words_of(item.text)) for item in made)
    assert made == prose_sentences(folder, 300, seed=3) != prose_sentences(folder, 300, seed=4)


def test_too_little_prose_is_said(tmp_path: Path) -> None:
    folder = corpus(tmp_path, {"train": MANY[:50], "valid": MANY[50:60], "test": MANY[60:80]})
    with pytest.raises(UserError, match=r"train.jsonl has 50 sentences .* 80 are needed.*text.max_mb"):
        prose_sentences(folder, 100, seed=0)
    assert prose_sentences(tmp_path / "nowhere", 0, seed=0) == []
