"""What texts are made of: words, letters of which script, and what a tokenizer has no piece for."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from muomni.audio_encoder import CHARACTERS, normalise
from muomni.check.findings import Section
from muomni.tokenizer import Tokenizer

FOREIGN = 0.2  # of a text's letters in another script: a name or a word does no harm
COMMON = 20  # how many of the most frequent are told


@lru_cache(maxsize=65536)
def script_of(letter: str) -> str:
    """The script that Unicode's name of a letter begins with: LATIN, CYRILLIC, GREEK, CJK, ..."""
    return unicodedata.name(letter, "UNKNOWN").split()[0].split("-")[0]


def foreign_share(text: str, script: str) -> tuple[float, str]:
    """How many of a text's letters are of another script, 0 to 1, and which one most are."""
    found = Counter(script_of(letter) for letter in text if letter.isalpha())
    others = {name: count for name, count in found.items() if name != script}
    if not others:
        return 0.0, ""
    return sum(others.values()) / found.total(), max(others, key=lambda name: others[name])


def unheard(text: str) -> list[str]:
    """Letters and digits of a transcript that the audio encoder has no character for, each once."""
    return sorted({c for c in text if c.isalnum() and not normalise(c).strip(f" {CHARACTERS[1]}")})


def check_words(section: Section, texts: Iterable[tuple[str, str]], script: str, tokenizer: Tokenizer | None) -> None:
    """Count words, and note the texts of another script or with characters that the tokenizer lacks.

    Args:
        section: takes what is found.
        texts: each with what messages call it.
        script: that letters are expected in, as Unicode names it.
        tokenizer: to ask, if there is one.
    """
    words, lacking, spelled, tokens, characters = Counter[str](), Counter[str](), Counter[str](), 0, 0
    known: dict[str, tuple[int, str]] = {}
    for item, text in texts:
        mine = re.findall(r"\w+(?:['’]\w+)*", text)
        words.update(mine)
        characters += len(text)
        share, other = foreign_share(text, script)
        if share > FOREIGN:
            section.add("other letters than expected", item, f"{share:.0%} of its letters are {other}", share)
        if tokenizer is None:
            continue
        missing = Counter[str]()
        for word in text.split():
            if word not in known:
                known[word] = _spelled(word, tokenizer)
            count, lacks = known[word]
            tokens += count
            missing.update(lacks)
            if count >= max(2, sum(c.isalnum() for c in word)):
                spelled[word] += 1
        lacking += missing
        if missing:
            few = " ".join(repr(c) for c in list(missing)[:5])
            section.add("characters that the tokenizer lacks", item, f"lacks {few}", missing.total() / len(text))
    section.facts |= {"words": f"{words.total():,}, {len(words):,} different", "characters": f"{characters:,}"}
    if tokenizer is not None:
        section.facts |= {
            "tokens": f"{tokens:,}, {tokens / max(words.total(), 1):.2f} a word",
            "words spelled letter by letter": f"{spelled.total():,}{_most(spelled)}",
            "characters that the tokenizer lacks": f"{lacking.total():,}{_most(lacking)}",
        }


def _spelled(word: str, tokenizer: Tokenizer) -> tuple[int, str]:
    """How many tokens a word has, and its characters that are spelled in bytes."""
    ids = tokenizer.encode(word)
    lacks = []
    for index, (start, end) in zip(ids, tokenizer.char_spans(ids), strict=True):
        if isinstance(tokenizer.spelled(index), bytes):
            lacks.append(word[start:end])  # a character appears with its last byte
    return len(ids), "".join(lacks)


def _most(found: Counter[str]) -> str:
    return f": {' '.join(name for name, _ in found.most_common(COMMON))}" if found else ""


def numbers(values: Iterable[Any]) -> str:
    """Least, middle and most of some numbers."""
    ordered = sorted(values)
    if not ordered:
        return "none"
    if ordered[0] == ordered[-1]:
        return short(ordered[0])
    return f"{short(ordered[0])} to {short(ordered[-1])}, half of them below {short(ordered[len(ordered) // 2])}"


def short(value: float) -> str:
    """A number with three digits that count, large ones whole."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
