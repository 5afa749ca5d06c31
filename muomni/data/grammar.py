"""The forms of sentences: how facts are asked and said, and the key that says what a sentence is about.

Every question and answer of the embedded data is made from a form here. `content_key` undoes it: it finds the
concepts that a sentence names, whatever its wording, so that held-out combinations can be kept apart in texts, in
speech and in pictures by the same rule, and near copies can be found.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from muomni.data.concepts import COLOURS, GROUPS, a, by_name, load_concepts
from muomni.data.splits import TRAIN_ONLY, combination_key

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
BACKGROUNDS = ("white", "gray", "yellow", "pink", "green", "blue")
# Slots: {a} "a dog", {x} and {y} "dog" or "red heart", {s} "dogs", {noun} "heart", {group} "a fruit".
RELATIONS = {
    "left-of": "to the left of",
    "right-of": "to the right of",
    "above": "above",
    "below": "below",
}
OPPOSITE = {"left-of": "right-of", "right-of": "left-of", "above": "below", "below": "above"}
PLACES = {
    "left": "on the left",
    "right": "on the right",
    "middle": "in the middle",
    "top": "at the top",
    "bottom": "at the bottom",
    "top left": "at the top left",
    "top right": "at the top right",
    "bottom left": "at the bottom left",
    "bottom right": "at the bottom right",
}
# Questions about a picture that name nothing in it.
OPEN_QUESTIONS = {
    "what": ("What is this?", "What is in the picture?", "What does the picture show?"),
    "list": ("What do you see?", "What can you see in the picture?", "What things are there?"),
    "group": ("What kind of thing is this?", "What sort of thing is in the picture?"),
    "background": ("What color is the background?", "Which color does the background have?"),
    "total": ("How many things are there?", "How many things can you see?"),
}
PLACE_QUESTIONS = ("What is {place}?", "What can you see {place}?", "Which thing is {place}?")
# Questions about one concept: first those about a picture, then those about the world.
NAME_QUESTIONS = {
    "exists": ("Is there {a}?", "Can you see {a}?", "Is there {a} in the picture?"),
    "count": ("How many {s} are there?", "How many {s} can you see?", "How many {s} are in the picture?"),
    "colour": (
        "What color is the {noun}?",
        "Which color does the {noun} have?",
        "What color are the {s}?",
        "Which color do the {s} have?",
    ),
    "where": ("Where is the {x}?", "Where can you see the {x}?"),
    "left-of": ("What is to the left of the {x}?", "What do you see to the left of the {x}?"),
    "right-of": ("What is to the right of the {x}?", "What do you see to the right of the {x}?"),
    "above": ("What is above the {x}?", "What do you see above the {x}?"),
    "below": ("What is below the {x}?", "What do you see below the {x}?"),
    "kind": ("What kind of thing is {a}?", "What is {a}?", "What sort of thing is {a}?"),
    "fly": ("Can {a} fly?", "Is {a} able to fly?"),
    "eat": ("Can you eat {a}?", "Is {a} something to eat?"),
    "drink": ("Can you drink {a}?", "Is {a} something to drink?"),
    "water": ("Does {a} live in water?", "Is water the home of {a}?"),
    "wheels": ("Does {a} have wheels?", "Are there wheels on {a}?"),
    "alive": ("Is {a} alive?", "Is {a} a living thing?"),
    "animal": ("Is {a} an animal?", "Is it true that {a} is an animal?"),
}
ISA_QUESTIONS = ("Is {a} {group}?", "Is it true that {a} is {group}?")
NAME_A_QUESTIONS = ("Name {group}.", "Can you name {group}?", "Tell me the name of {group}.")
# Questions about two concepts: their combination is the key.
PAIR_QUESTIONS = {
    "relation": ("Is the {x} {relation} the {y}?",),
    "bigger": ("Which is bigger, {a} or {b}?", "What is bigger, {a} or {b}?"),
    "is-bigger": ("Is {a} bigger than {b}?",),
    "which": ("Which one is {group}, {a} or {b}?",),
}
# Statements about one concept that the pictures and questions of every split need, so they are never held out.
PICTURE_ANSWERS = ("{a}", "a picture of {a}", "It is {a}.", "I see {a}.", "This is {a}.", "There is one {x}.") + (
    "Yes, there is {a}.",
    "No, there is no {x}.",
    "Yes, I can see {a}.",
    "No, I cannot see {a}.",
)
NAME_ANSWERS = (
    PICTURE_ANSWERS
    + ("{a} can fly.", "{a} cannot fly.", "Yes, {a} can fly.", "No, {a} cannot fly.")
    + ("Yes, you can eat {a}.", "No, you cannot eat {a}.", "Yes, you can drink {a}.", "No, you cannot drink {a}.")
    + ("You can eat {a}.", "You cannot eat {a}.", "You can drink {a}.", "You cannot drink {a}.")
    + ("Yes, {a} lives in water.", "No, {a} does not live in water.", "{a} lives in water.")
    + ("Yes, {a} has wheels.", "No, {a} does not have wheels.", "{a} has wheels.")
    + ("Yes, {a} is alive.", "No, {a} is not alive.", "{a} is alive.")
    + ("Yes, {a} is an animal.", "No, {a} is not an animal.", "{a} is an animal.")
)
_GROUP_ANSWERS = ("{a} is {group}.", "Yes, {a} is {group}.", "No, {a} is not {group}.")


@dataclass(frozen=True)
class QA:
    """A question, its answer, and what has to be in an answer that is right.

    Attributes:
        kind: for example ``what``, ``left-of``, ``count``: accuracy is reported by kind.
        question: one of the forms that mean the same.
        answer: one short sentence.
        targets: the bare facts. For ``list`` all of them are needed, otherwise any one of them.
        key: `content_key` of the question, for the split.
    """

    kind: str
    question: str
    answer: str
    targets: tuple[str, ...]
    key: str

    @property
    def target(self) -> str:
        """The fact, or the first of them."""
        return self.targets[0]


def sentence(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def listing(parts: Sequence[str]) -> str:
    """``a dog``, ``a dog and a cat``, ``a dog, a cat and a cow``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def words_of(text: str) -> list[str]:
    """Lower-case words of a text, without punctuation."""
    return re.findall(r"[a-z']+", text.lower())


@cache
def _phrases() -> dict[tuple[str, ...], str]:
    """Names, plurals and shapes' nouns as tuples of words, each with the name it means."""
    phrases = {}
    for concept in load_concepts():
        for text, name in ((concept.noun, concept.noun), (f"{concept.noun}s", concept.noun)):
            if concept.colour:
                phrases[tuple(text.split())] = name
    for concept in load_concepts():
        phrases[tuple(concept.name.split())] = concept.name
        phrases[tuple(concept.plural.split())] = concept.name
    return phrases


@cache
def _longest() -> int:
    return max(len(phrase) for phrase in _phrases())


def parse_names(text: str) -> tuple[list[str], str]:
    """Find the concepts that a text names, longest names first.

    Returns:
        Their names in the order of the text (a shape without its colour as its noun), and the text's pattern: its
        words with ``_`` for each of them and ``a`` for ``an``.
    """
    words, phrases, longest = words_of(text), _phrases(), _longest()
    names, pattern, at = [], [], 0
    while at < len(words):
        for length in range(min(longest, len(words) - at), 0, -1):
            name = phrases.get(tuple(words[at : at + length]))
            if name is not None:
                names.append(name)
                pattern.append("_")
                at += length
                break
        else:
            pattern.append("a" if words[at] == "an" else words[at])
            at += 1
    return names, " ".join(pattern)


def names_in(text: str) -> list[str]:
    """The concepts that a text names, in its order."""
    return parse_names(text)[0]


def fill(form: str, name: str, **slots: str) -> str:
    """Put a concept into a form's slots ``{a}``, ``{x}``, ``{s}`` and ``{noun}``; other slots are given."""
    concept = by_name().get(name)
    plural = concept.plural if concept else f"{name}s"
    noun = concept.noun if concept else name
    return sentence(form.format(**{"a": a(name), "x": name, "s": plural, "noun": noun} | slots))


@cache
def _question_kinds() -> dict[str, str]:
    """Pattern of every question about one concept, with its kind: forms that mean the same have one key."""
    kinds = {parse_names(fill(form, "dog"))[1]: kind for kind, forms in NAME_QUESTIONS.items() for form in forms}
    for group, (phrase, _) in GROUPS.items():
        for form in ISA_QUESTIONS:
            kinds[parse_names(fill(form, "dog", group=phrase))[1]] = f"isa {group}"
    return kinds


@cache
def _answer_patterns() -> frozenset[str]:
    """Patterns of the statements about one concept that are never held out."""
    forms = [*NAME_ANSWERS]
    forms += [f"The {{x}} is {place}." for place in PLACES.values()]
    forms += [f"The {{x}} {verb} {colour}." for colour in COLOURS for verb in ("is", "are")]
    forms += [form.replace("{group}", phrase) for phrase, _ in GROUPS.values() for form in _GROUP_ANSWERS]
    forms += [f"{{s}} are {plural}." for _, plural in GROUPS.values()]
    forms += [f"{{a}} on a {background} background" for background in BACKGROUNDS]
    return frozenset(parse_names(fill(form, "dog"))[1] for form in forms)


@lru_cache(maxsize=1 << 17)  # the same questions are asked about many pictures
def content_key(text: str) -> str:
    """What a sentence is about, for splits and for finding near copies.

    Two or more concepts: their sorted names, whatever the sentence says about them (``cat|dog``). Several of one:
    ``dog*3``. One: the kind of question, or the sentence's pattern, and the name (``exists|dog``). What every split
    needs, answers about one concept and sentences without any, starts with `TRAIN_ONLY`.
    """
    names, pattern = parse_names(text)
    if len(set(names)) > 1:
        return combination_key(names)
    if not names:
        return f"{TRAIN_ONLY}{pattern}"
    name, words = names[0], pattern.split()
    before = words[words.index("_") - 1] if words.index("_") else ""
    if before in NUMBERS[2:]:
        return f"{name}*{NUMBERS.index(before)}"
    # Only a few nouns have a colour that can be asked for: too few to hold one out.
    kind = _question_kinds().get(pattern, pattern)
    needed = kind == "colour" or pattern in _answer_patterns()
    return f"{TRAIN_ONLY if needed else ''}{kind}|{name}"


def is_right(qa: QA, answer: str) -> bool:
    """Whether an answer states the fact that was asked for.

    The first word decides a question for yes or no, the first name in the answer one for a name, the first place
    one for a place; a list has to name all things and nothing else.
    """
    words = words_of(answer)
    if qa.target in ("yes", "no"):
        return bool(words) and words[0] == qa.target
    names, pattern = parse_names(answer)
    if qa.kind == "list":
        return sorted(set(names)) == sorted(set(qa.targets))
    if qa.kind == "count":
        return next((word for word in words if word in NUMBERS), None) in qa.targets
    if names_in(qa.target) == [qa.target]:
        return bool(names) and names[0] in qa.targets
    for text in (pattern, " ".join(words)):  # "A red heart is a shape." does not say that it is red
        found = [fact for fact in _facts() if f" {fact} " in f" {text} "]
        if found:
            # "top left" holds "left" as well: the longest fact counts.
            return max(found, key=len) in qa.targets
    return any(f" {target} " in f" {' '.join(words)} " for target in qa.targets)


@cache
def _facts() -> tuple[str, ...]:
    """Facts that are no names: places, colours, numbers, groups."""
    groups = tuple(phrase.split(" ", 1)[1] for phrase, _ in GROUPS.values())
    return tuple(dict.fromkeys((*PLACES, *COLOURS, *BACKGROUNDS, *NUMBERS, *groups, "animal")))
