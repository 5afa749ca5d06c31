"""Whether an answer is right."""

import re
from collections.abc import Sequence

ALL_NEEDED = ("list",)  # kinds of questions whose targets must all be in the answer


def words(text: str) -> str:
    """Lower-case words with single spaces, and one at either end, so that whole words can be looked for."""
    return f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} "


def is_right(kind: str, answer: str, targets: Sequence[str]) -> bool:
    """Whether an answer says what it has to.

    Args:
        kind: of the question; ``list`` needs all targets, any other kind one of them.
        answer: the model's.
        targets: bare facts, of one or a few words.

    A yes or no must be the first word: a sentence can hold "no" for another reason.
    """
    said = words(answer)
    if set(targets) <= {"yes", "no"}:
        return said.split()[:1] == [targets[0]]
    found = [words(target) in said for target in targets]
    return all(found) if kind in ALL_NEEDED else any(found)
