"""Texts of the larger corpus: the King James Bible, Shakespeare's works, and WordNet's definitions of nouns.

Each is read from its package's archive (`muomni.data.packages`). A document is a chapter, a work, or some definitions.
"""

import json
import re
from collections.abc import Iterator
from typing import Literal

from muomni.data.packages import read_members

PACKAGED: tuple[Literal["bible", "shakespeare", "wordnet"], ...] = ("bible", "shakespeare", "wordnet")
Named = Iterator[tuple[str, str]]

DEFINITIONS = 40  # a document: neighbours in WordNet's files are of one field
# Works with a second text, of the First Folio in its own spelling; what is no work of his alone, or no text.
FOLIO, NO_WORKS = "_gut_f.txt", ("metadata.txt",)


def packaged_documents(key: str) -> Named:
    """Name and raw text of each document of a package, in a fixed order.

    Args:
        key: of `PACKAGED`.

    Raises:
        UserError: if the archive is missing or damaged.
    """
    return {"bible": bible, "shakespeare": shakespeare, "wordnet": wordnet}[key]()


def bible() -> Named:
    """The chapters, a verse after the other, without their numbers."""
    (data,) = read_members("bible", ("bible/data/kjv.jsonl",)).values()
    chapters: dict[str, list[str]] = {}
    for line in data.splitlines():
        verse = json.loads(line)
        chapters.setdefault(f"{verse['book']} {verse['chapter']}", []).append(verse["text"])
    for name, verses in chapters.items():
        yield name, " ".join(verses)


def shakespeare() -> Named:
    """The works, each in one text of modern spelling."""
    for name, data in read_members("shakespeare", below="shksprdata/texts").items():
        file = name.rpartition("/")[2]
        if not file.endswith(FOLIO) and file not in NO_WORKS:
            yield file.removesuffix("_gut.txt"), data.decode("latin-1")


def wordnet() -> Named:
    """Definitions of nouns, some dozen that lie beside each other a document: "Dwarf: a plant that is ...\""""
    (data,) = read_members("wordnet", ("dict/data.noun",)).values()
    lines = (line for line in data.decode("utf-8").splitlines() if line[:8].isdigit())
    some: list[str] = []
    number = 0
    for line in lines:
        some.append(_definition(line))
        if len(some) == DEFINITIONS:
            yield f"nouns-{number:05d}", "\n".join(some)
            some, number = [], number + 1
    if some:
        yield f"nouns-{number:05d}", "\n".join(some)


def _definition(line: str) -> str:
    """A line of ``data.noun``: its words, and what they mean, without the examples in quotation marks."""
    head, _, gloss = line.partition(" | ")
    fields = head.split()
    words = [fields[4 + 2 * i].replace("_", " ") for i in range(int(fields[3], 16))]
    meaning = re.split(r';\s*"', gloss, maxsplit=1)[0].strip().rstrip(";.")
    said = ", ".join(words)
    return f"{said[0].upper()}{said[1:]}: {meaning}."
