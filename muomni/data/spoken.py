"""Sentences to be spoken: every question and answer the other data uses, and statements over the same words.

Each sentence has the split of what it is about, so that a held-out sentence speaks of a combination that no training
text, sentence or picture has, in words that training does have.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from muomni.data.concepts import GROUPS, Concept, a
from muomni.data.grammar import (
    BACKGROUNDS,
    NAME_A_QUESTIONS,
    NAME_QUESTIONS,
    NUMBERS,
    OPEN_QUESTIONS,
    PAIR_QUESTIONS,
    PICTURE_ANSWERS,
    PLACE_QUESTIONS,
    PLACES,
    RELATIONS,
    content_key,
    fill,
    sentence,
    words_of,
)
from muomni.data.world import ATTRIBUTES, can_ask, pair_questions
from muomni.errors import UserError

# Slots: {a}, {x} and {s} of one concept, {b}, {y} and {t} of another, {c} of a third, {n} a number from two.
PAIR_STATEMENTS = (
    "The {x} is next to {b}.",
    "The {x} is behind the {y}.",
    "There is {a} in front of the {y}.",
    "I can see {n} {s} and {b}.",
    "I see {a} and {n} {t}.",
    "There are {n} {s} beside the {y}.",
    "Put the {x} under the {y}.",
    "Please put the {x} on the {y}.",
    "Look at the {x} and the {y}.",
    "I have {a} and {b} at home.",
    "My friend has {a} but no {y}.",
    "She likes the {x} more than the {y}.",
    "Do you want {a} or {b}?",
    "The {x} and the {y} are in the same picture.",
    "We have {n} {s} and {n} {t}.",
    "They gave me {a} for my {y}.",
)
NAME_STATEMENTS = (
    "There is no {x} in the picture.",
    "Please show me {a}.",
    "I would like to have {a}.",
    "Where did you put the {x}?",
    "This is not {a}.",
    "The {x} is very old.",
    "I do not like {s}.",
    "He told us about the {x} yesterday.",
    "All the {s} are gone.",
    "Do you know what {a} looks like?",
)
COUNT_STATEMENTS = (
    "There are {n} {s}.",
    "I see {n} {s}.",
    "Yes, there are {n} {s}.",
    "{n} {s} on a {background} background",
    "There are {n} {s} in the picture.",
    "I counted {n} {s} this morning.",
)
TRIPLES = (
    "I see {a}, {b} and {c}.",
    "{a}, {b} and {c}",
    "There is {a} between {b} and {c}.",
    "I can see {a}, {b} and {c} in the picture.",
)
ABOUT_PICTURES = ("exists", "count", "where", "left-of", "right-of", "above", "below")


@dataclass(frozen=True)
class Spoken:
    """One sentence to be spoken.

    Attributes:
        text: with capital letter and full stop, or a bare noun phrase.
        kind: the family of forms it comes from.
        key: `content_key` of the text.
        split: train, valid or test.
    """

    text: str
    kind: str
    key: str
    split: str


Made = tuple[str, str]  # kind, text


def _open(rng: random.Random) -> list[Made]:
    """What names no concept: it is in every corpus, as every picture needs it."""
    made = [("question", form) for forms in OPEN_QUESTIONS.values() for form in forms]
    made += [("question", form.format(place=place)) for form in PLACE_QUESTIONS for place in PLACES.values()]
    made += [("question", form.format(group=phrase)) for form in NAME_A_QUESTIONS for phrase, _ in GROUPS.values()]
    made += [("answer", f"The background is {background}.") for background in BACKGROUNDS]
    made += [("answer", f"There are {number} things.") for number in NUMBERS[2:5]]
    made += [("answer", f"It is {phrase}.") for phrase, _ in GROUPS.values()]
    rng.shuffle(made)
    return made


def _slots(concepts: Sequence[Concept], rng: random.Random) -> dict[str, str]:
    """Values for the slots of up to three concepts."""
    first, second, third = [*concepts, *[concepts[0]] * 2][:3]
    return {
        "a": a(first.name),
        "x": first.name,
        "s": first.plural,
        "b": a(second.name),
        "y": second.name,
        "t": second.plural,
        "c": a(third.name),
        "n": rng.choice(NUMBERS[2:5]),
        "background": rng.choice(BACKGROUNDS),
    }


def _fill_slots(form: str, concepts: Sequence[Concept], rng: random.Random) -> str:
    return sentence(form.format(**_slots(concepts, rng)))


class _Maker:
    """Draws sentences of one family at a time."""

    def __init__(self, concepts: Sequence[Concept], rng: random.Random) -> None:
        self.all, self.rng = list(concepts), rng
        self.scene = [concept for concept in concepts if concept.scene] or self.all
        self.shapes = [concept for concept in concepts if concept.colour]
        # Families and how often they are drawn. Pairs weigh most: they are what can be held out.
        self.families = {
            self.pair: 28,
            self.scene_pair: 14,
            self.picture_question: 18,
            self.picture_answer: 10,
            self.world: 9,
            self.compare: 8,
            self.count: 10,
            self.name: 7,
            self.triple: 6,
        }
        if self.shapes:
            self.families[self.colour] = 3

    def draw(self) -> Made:
        """One sentence of a random family."""
        family = self.rng.choices(list(self.families), list(self.families.values()))[0]
        return family()

    def _some(self, number: int) -> list[Concept]:
        """Distinct concepts, half of the time those of scenes."""
        pool = self.scene if self.rng.random() < 0.5 and len(self.scene) >= number else self.all
        return self.rng.sample(pool, min(number, len(pool)))

    def pair(self) -> Made:
        """A statement about two concepts."""
        return "pair", _fill_slots(self.rng.choice(PAIR_STATEMENTS), self._some(2), self.rng)

    def scene_pair(self) -> Made:
        """What is said and asked about a scene of two drawings."""
        first, second = self.rng.sample(self.scene, 2) if len(self.scene) > 1 else self._some(2)
        relation = self.rng.choice(list(RELATIONS.values()))
        x, y = first.name, second.name
        return self.rng.choice(
            (
                ("caption", sentence(f"{a(x)} {relation} {a(y)}")),
                ("question", PAIR_QUESTIONS["relation"][0].format(x=x, y=y, relation=relation)),
                ("answer", f"The {x} is {relation} the {y}."),
                ("answer", f"Yes, the {x} is {relation} the {y}."),
                ("answer", f"No, the {x} is {relation} the {y}."),
                ("answer", f"I see {a(x)} and {a(y)}."),
            )
        )

    def picture_question(self) -> Made:
        """A question about a picture that names one concept; the first wording is drawn most."""
        forms = NAME_QUESTIONS[self.rng.choice(ABOUT_PICTURES)]
        form = forms[0] if self.rng.random() < 0.7 else self.rng.choice(forms)
        return "question", fill(form, self.rng.choice(self.scene).name)

    def picture_answer(self) -> Made:
        """An answer about one concept; these are always for training."""
        name = self._some(1)[0].name
        if self.rng.random() < 0.25:
            return "answer", f"The {name} is {self.rng.choice(list(PLACES.values()))}."
        return "answer", fill(self.rng.choice(PICTURE_ANSWERS), name)

    def world(self) -> Made:
        """A question about the world, or its answer."""
        concept, rng = self.rng.choice(self.all), self.rng
        asked = [name for name in ATTRIBUTES if can_ask(concept, name)]
        kind = rng.choice(("kind", "animal", *asked))
        if rng.random() < 0.6:
            return "question", fill(rng.choice(NAME_QUESTIONS[kind]), concept.name)
        if kind in ATTRIBUTES:
            holds = bool(concept.has(kind))
            said = ATTRIBUTES[kind][0 if holds else 1].format(a=a(concept.name))
            return "answer", f"{'Yes' if holds else 'No'}, {said}."
        return "answer", sentence(f"{a(concept.name)} is {GROUPS[concept.group][0]}.")

    def compare(self) -> Made:
        """A comparison of two concepts, or its answer."""
        while True:
            first, second = self.rng.sample(self.all, 2)
            asked = pair_questions(first, second, self.rng)
            asked = [qa for qa in asked if qa.kind != "which" or self.rng.random() < 0.3]
            if asked:
                qa = self.rng.choice(asked)
                return self.rng.choice((("question", qa.question), ("answer", qa.answer)))

    def count(self) -> Made:
        """Several of one kind."""
        concept = self.rng.choice(self.scene if self.rng.random() < 0.7 else self.all)
        return "count", _fill_slots(self.rng.choice(COUNT_STATEMENTS), [concept], self.rng)

    def name(self) -> Made:
        """A statement about one concept."""
        return "statement", _fill_slots(self.rng.choice(NAME_STATEMENTS), [self.rng.choice(self.all)], self.rng)

    def triple(self) -> Made:
        """Three concepts together."""
        return "triple", _fill_slots(self.rng.choice(TRIPLES), self._some(3), self.rng)

    def colour(self) -> Made:
        """The colour of a shape."""
        shape = self.rng.choice(self.shapes)
        if self.rng.random() < 0.5:
            return "question", fill(self.rng.choice(NAME_QUESTIONS["colour"]), shape.noun)
        subject = self.rng.choice((f"{shape.noun} is", f"{shape.noun}s are"))
        return "answer", f"The {subject} {shape.colour}."


def endless_sentences(
    concepts: Sequence[Concept], rng: random.Random, split: Callable[[str], str | None]
) -> Iterator[Spoken]:
    """Sentences of all families as they are drawn, some of them again and again; none whose key has no split."""
    maker = _Maker(concepts, rng)
    while True:
        kind, text = maker.draw()
        key = content_key(text)
        where = split(key)
        if where is not None:
            yield Spoken(text, kind, key, where)


def unseen_words(sentences: Sequence[Spoken]) -> set[str]:
    """Words of held-out sentences that no training sentence has."""
    words: dict[bool, set[str]] = {True: set(), False: set()}
    for item in sentences:
        words[item.split == "train"].update(words_of(item.text))
    return words[False] - words[True]


def spoken_sentences(
    concepts: Sequence[Concept], rng: random.Random, n: int, split: Callable[[str], str | None]
) -> list[Spoken]:
    """Distinct sentences for the speech corpus, in random order.

    Every name is in training in the singular and the plural as far as half of `n` allows, and every word of a
    held-out sentence is in training.

    Args:
        concepts: what is spoken of; those of scenes more often.
        rng: chooses.
        n: how many sentences.
        split: split of a key, for example ``lambda key: combination_split(key, seed)``.

    Raises:
        UserError: if the concepts do not make so many different sentences.
    """
    made: dict[str, Spoken] = {}

    def add(kind: str, text: str, only: str | None = None) -> bool:
        key = content_key(text)
        where = split(key)
        if text in made or where is None or (only and where != only):
            return False
        made[text] = Spoken(text, kind, key, where)
        return True

    for kind, text in _open(rng)[: max(1, n // 8)]:
        add(kind, text)
    # Forms whose keys differ, so that one of them is in training for nearly every name.
    covering = ("There is no {x} in the picture.", "I would like to have {a}.", "The {x} is very old.")
    plurals = ("I do not like {s}.", "How many {s} are there?", "All the {s} are gone.", "{n} {s}", "{n} {s}")
    for concept in rng.sample(list(concepts), min(len(concepts), n // 4)):
        for forms in (covering, plurals):
            any(
                add("statement", _fill_slots(form, [concept], rng), only="train")
                for form in rng.sample(forms, len(forms))
            )
    maker, only = _Maker(concepts, rng), None
    while True:
        failures = 0
        while len(made) < n:
            failures = 0 if add(*maker.draw(), only=only) else failures + 1
            if failures > 3000:
                raise UserError(
                    f"speech: {len(concepts)} concepts make no more than about {len(made)} different sentences, "
                    f"{n} were asked for; ask for fewer sentences or more concepts (images.names)"
                )
        unseen = unseen_words(list(made.values()))
        if not unseen:
            break
        made = {
            text: item
            for text, item in made.items()
            if item.split == "train" or not unseen.intersection(words_of(text))
        }
        only = "train"
    sentences = list(made.values())[:n]
    rng.shuffle(sentences)
    return sentences
