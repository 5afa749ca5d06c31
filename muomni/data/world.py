"""Questions about the world that the table of concepts answers, and prose that states its facts."""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence

from muomni.data.concepts import GROUPS, Concept, a, groups_apart
from muomni.data.grammar import (
    ISA_QUESTIONS,
    NAME_A_QUESTIONS,
    NAME_QUESTIONS,
    PAIR_QUESTIONS,
    QA,
    content_key,
    fill,
    listing,
    sentence,
)

# attribute: how it is said of something that has it, and of something that has not.
ATTRIBUTES = {
    "fly": ("{a} can fly", "{a} cannot fly"),
    "eat": ("you can eat {a}", "you cannot eat {a}"),
    "drink": ("you can drink {a}", "you cannot drink {a}"),
    "water": ("{a} lives in water", "{a} does not live in water"),
    "wheels": ("{a} has wheels", "{a} does not have wheels"),
    "alive": ("{a} is alive", "{a} is not alive"),
}
_PLURAL_FACTS = {
    "fly": ("{s} can fly", "{s} cannot fly"),
    "eat": ("people eat {s}", "nobody eats {s}"),
    "drink": ("people drink {s}", "nobody drinks {s}"),
    "water": ("{s} live in water", "{s} live on land"),
    "wheels": ("{s} have wheels", "{s} have no wheels"),
    "alive": ("{s} are alive", "{s} are not alive"),
}
# A concept of the first kind is at least so many sizes larger when it is asked which is bigger.
SIZE_STEPS = 2


def can_ask(concept: Concept, attribute: str) -> bool:
    """Whether asking for an attribute makes sense and has one answer."""
    if concept.group in ("shape", "sky", "body", "fantasy") or concept.has(attribute) is None:
        return False
    if attribute in ("eat", "drink"):
        # People do eat animals, and some plants.
        return not concept.is_animal and concept.group not in ("plant", "medical", "nature")
    if attribute == "water":
        return concept.is_animal
    if attribute == "fly":
        return concept.is_animal or concept.group in ("vehicle", "household", "building", "fruit")
    return True


def _yes_no(kind: str, question: str, fact: str, holds: bool) -> QA:
    answer = f"{'Yes' if holds else 'No'}, {fact}."
    return QA(kind, question, answer, ("yes" if holds else "no",), content_key(question))


def _balance(found: list[QA], rng: random.Random) -> list[QA]:
    """As many for yes as for no: what is too many is left out."""
    sides = {side: [qa for qa in found if qa.target == side] for side in ("yes", "no")}
    number = min(map(len, sides.values()))
    return [qa for side in sides.values() for qa in rng.sample(side, number)]


def _kinds(concepts: Sequence[Concept], rng: random.Random) -> list[QA]:
    """What something is, whether it is one of a kind, and examples of a kind."""
    found, members = [], defaultdict(list)
    for concept in concepts:
        members[concept.group].append(concept.name)
    for concept in concepts:
        name, (phrase, _) = concept.name, GROUPS[concept.group]
        question = fill(rng.choice(NAME_QUESTIONS["kind"]), name)
        answer = sentence(f"{a(name)} is {phrase}.")
        found.append(QA("kind", question, answer, (phrase.split(" ", 1)[1],), content_key(question)))
        question = fill(rng.choice(ISA_QUESTIONS), name, group=phrase)
        found.append(_yes_no("isa", question, f"{a(name)} is {phrase}", True))
        apart = [group for group in members if groups_apart(concept.group, group)]
        if apart:
            other = GROUPS[rng.choice(apart)][0]
            question = fill(rng.choice(ISA_QUESTIONS), name, group=other)
            found.append(_yes_no("isa", question, f"{a(name)} is not {other}", False))
    for group, names in members.items():
        phrase = GROUPS[group][0]
        for form in NAME_A_QUESTIONS:
            question, example = form.format(group=phrase), rng.choice(names)
            answer = sentence(f"{a(example)} is {phrase}.")
            found.append(QA("name", question, answer, tuple(names), content_key(question)))
    return found


def _attributes(concepts: Sequence[Concept], rng: random.Random) -> list[QA]:
    """What things can do and have."""
    found = []
    for attribute, (positive, negative) in ATTRIBUTES.items():
        asked = []
        for concept in concepts:
            if can_ask(concept, attribute):
                holds = bool(concept.has(attribute))
                fact = (positive if holds else negative).format(a=a(concept.name))
                question = fill(rng.choice(NAME_QUESTIONS[attribute]), concept.name)
                asked.append(_yes_no(attribute, question, fact, holds))
        found += _balance(asked, rng)
    animals = []
    for concept in concepts:
        if concept.group not in ("fantasy", "body", "nature", "toy"):
            fact = f"{a(concept.name)} is {'' if concept.is_animal else 'not '}an animal"
            question = fill(rng.choice(NAME_QUESTIONS["animal"]), concept.name)
            animals.append(_yes_no("animal", question, fact, concept.is_animal))
    return found + _balance(animals, rng)


def pair_questions(first: Concept, second: Concept, rng: random.Random) -> list[QA]:
    """Comparisons of two concepts: which is bigger, which belongs to a kind; an empty list if none is sensible."""
    found = []
    x, y = (a(first.name), a(second.name)) if rng.random() < 0.5 else (a(second.name), a(first.name))
    if first.size and second.size and abs(first.size - second.size) >= SIZE_STEPS:
        large, small = (first, second) if first.size > second.size else (second, first)
        fact = f"{a(large.name)} is bigger than {a(small.name)}"
        question = rng.choice(PAIR_QUESTIONS["bigger"]).format(a=x, b=y)
        found.append(QA("bigger", question, sentence(f"{fact}."), (large.name,), content_key(question)))
        question = PAIR_QUESTIONS["is-bigger"][0].format(a=x, b=y)
        holds = x == a(large.name)
        said = fact if holds else f"{a(small.name)} is not bigger than {a(large.name)}"
        found.append(_yes_no("is-bigger", question, said, holds))
    if groups_apart(first.group, second.group):
        member = rng.choice((first, second))
        phrase = GROUPS[member.group][0]
        question = PAIR_QUESTIONS["which"][0].format(group=phrase, a=x, b=y)
        answer = sentence(f"{a(member.name)} is {phrase}.")
        found.append(QA("which", question, answer, (member.name,), content_key(question)))
    return found


def world_questions(concepts: Sequence[Concept], rng: random.Random, pairs: int | None = None) -> list[QA]:
    """Questions about all concepts, each in one of its wordings, in random order.

    Each question's key says in which split it may be used (`muomni.data.splits.combination_split`): a question of
    the test is never asked in training, while the fact itself is met there, in prose or in another question.

    Args:
        concepts: what is asked about.
        rng: chooses wordings, false groups, examples and pairs.
        pairs: how many pairs of concepts are compared; by default four for each concept.
    """
    found = _kinds(concepts, rng) + _attributes(concepts, rng)
    wanted = 4 * len(concepts) if pairs is None else pairs
    seen: set[str] = set()
    for _ in range(4 * wanted if len(concepts) > 1 else 0):
        if len(seen) >= wanted:
            break
        first, second = rng.sample(concepts, 2)
        asked = pair_questions(first, second, rng)
        if asked and asked[0].key not in seen:
            seen.add(asked[0].key)
            found += asked
    rng.shuffle(found)
    return found


def fact_documents(
    concepts: Sequence[Concept], rng: random.Random, split: Callable[[str], str | None], per_concept: int = 3
) -> list[str]:
    """Short paragraphs of prose about the concepts, for the text corpus.

    They state every fact, in the plural or in the words of a question whose key is in training, and compare only
    pairs of concepts that are in training.

    Args:
        concepts: what is written about.
        rng: chooses facts and order.
        split: split of a key, for example ``lambda key: combination_split(key, seed)``.
        per_concept: how many paragraphs each concept gets.
    """
    documents = []
    groups = defaultdict(list)
    for concept in concepts:
        groups[concept.group].append(concept)
    for concept in concepts:
        for _ in range(per_concept):
            facts = [f"{concept.plural} are {GROUPS[concept.group][1]}"]
            for attribute, forms in ATTRIBUTES.items():
                if can_ask(concept, attribute) and (concept.has(attribute) or rng.random() < 0.3):
                    side = 0 if concept.has(attribute) else 1
                    facts.append(forms[side].format(a=a(concept.name)))
                    if rng.random() < 0.5:
                        facts[-1] = _PLURAL_FACTS[attribute][side].format(s=concept.plural)
            for other in rng.sample(concepts, min(4, len(concepts))):
                if other.name != concept.name:
                    asked = pair_questions(concept, other, rng)
                    facts += [qa.answer[:-1] for qa in asked if qa.kind == "bigger"]
            if rng.random() < 0.5:
                facts.append(f"{a(concept.name)} is {GROUPS[concept.group][0]}")
            kept = [fact for fact in facts[1:] if split(content_key(fact)) == "train"]
            kept = rng.sample(kept, min(len(kept), rng.randint(2, 5)))
            documents.append(" ".join(sentence(f"{fact}.") for fact in [facts[0], *kept]))
    for group, members in groups.items():
        for _ in range(per_concept):
            some = rng.sample(members, min(3, len(members)))
            names = listing([concept.plural for concept in some])
            if len(some) > 1 and split(content_key(names)) == "train":
                documents.append(sentence(f"{names} are {GROUPS[group][1]}."))
    rng.shuffle(documents)
    return documents
