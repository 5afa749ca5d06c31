"""Sentences of ordinary prose to be spoken: open text, so that the Talker learns how English is read and not a list.

They are whole sentences of the text corpus and stay in the split of their document.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from muomni.data.files import read_jsonl
from muomni.data.grammar import words_of
from muomni.data.splits import TEST_SHARE, VALID_SHARE
from muomni.data.spoken import Spoken
from muomni.errors import UserError

# Sources of the text corpus whose sentences are spoken anyway, or are none.
MADE = ("facts", "sentences", "wordnet")
WORDS = (3, 20)
CHARACTERS = 120  # about 9 s
RARE = 3  # a word of the training sentences is wanted so often before sentences are drawn regardless of their words

END = re.compile(r"(?<=[.!?])[\"'”’)]*\s+(?=[\"'“‘(]*[A-Z])")
PLAIN = re.compile(r"[A-Z][A-Za-z ,;:'’-]*[A-Za-z][.!?]")
INITIALS = re.compile(r"[A-Z]{2}|(?<!['’])\b[B-HJ-Zb-z]\b")  # and acronyms; not everyone spells them out
ABBREVIATION = re.compile(r"\b(Mr|Mrs|Ms|Dr|St|No|Hon|Messrs|Gen|Col|Capt|Jr|Sr|vs|etc)\.$")


def plain_sentences(text: str) -> list[str]:
    """Sentences of a text that every reader says in the same words.

    Those with digits, quotations, brackets, initials or abbreviations are left out, and those shorter or longer than
    `WORDS` and `CHARACTERS`.
    """
    found = []
    for part in END.split(" ".join(text.split())):
        said = part.strip()
        low, high = WORDS
        if (
            len(said) <= CHARACTERS
            and low <= len(said.split()) <= high
            and PLAIN.fullmatch(said)
            and not INITIALS.search(said)
            and not ABBREVIATION.search(said)
            and "--" not in said
        ):
            found.append(said)
    return found


def with_rare_words_first(sentences: Iterable[str]) -> list[str]:
    """An order in which a beginning of any length has many different words: those with a rare word come first."""
    seen = Counter[str]()
    first, rest = [], []
    for said in sentences:
        words = set(words_of(said))
        if any(seen[word] < RARE for word in words):
            first.append(said)
            seen.update(words)
        else:
            rest.append(said)
    return first + rest


def prose_sentences(corpus: Path, n: int, seed: int) -> list[Spoken]:
    """Sentences of the text corpus' prose, in random order.

    Args:
        corpus: the text corpus, with a file for each split.
        n: how many, of which `VALID_SHARE` and `TEST_SHARE` are held out.
        seed: chooses.

    Raises:
        UserError: if the corpus is missing or too small.
    """
    if not n:
        return []
    shares = {"test": round(n * TEST_SHARE), "valid": round(n * VALID_SHARE)}
    shares["train"] = n - sum(shares.values())
    rng = random.Random(f"prose:{seed}")
    taken = set[str]()  # by any split, as words: held-out ones first, so that training has no copy
    made = list[Spoken]()
    for split, wanted in shares.items():
        found = dict[str, str]()
        for row in read_jsonl(corpus / f"{split}.jsonl", "corpus-text"):
            if row["source"] not in MADE:
                found.update({" ".join(words_of(said)): said for said in plain_sentences(row["text"])})
        usable = [(key, said) for key, said in sorted(found.items()) if key not in taken]
        rng.shuffle(usable)
        if len(usable) < wanted:
            raise UserError(
                f"speech.prose: {corpus}/{split}.jsonl has {len(usable)} sentences to be spoken, {wanted} are needed; "
                "ask for fewer, or for more text (text.max_mb)"
            )
        taken.update(key for key, _ in usable)
        made += [
            Spoken(said, "prose", "prose:" + " ".join(words_of(said)), split)
            for said in with_rare_words_first(said for _, said in usable)[:wanted]
        ]
    rng.shuffle(made)
    return made
