"""The best answer that does not look: what a question's words alone let one guess.

From the training conversations it learns the most frequent right answer of each kind of question, of each question
pattern ("What is above the _?") and of each single question. A model that sees must do better than all three.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from muomni.data.grammar import QA, is_right, parse_names
from muomni.evaluate.measure import Figure, share

LEVELS = ("kind", "pattern", "question")


@dataclass(frozen=True)
class Asked:
    """A question: its task and kind, its words (empty if it is spoken), and the bare facts of a right answer."""

    task: str
    kind: str
    question: str
    targets: tuple[str, ...]

    def places(self) -> dict[str, tuple[str, ...]]:
        """Where its answer is counted, by level."""
        kind = (self.task, self.kind)
        return {
            "kind": kind,
            "pattern": (*kind, parse_names(self.question)[1]),
            "question": (*kind, "=", self.question),
        }


class Blind:
    """Answers by frequency.

    Args:
        training: questions with their answers.
    """

    def __init__(self, training: Iterable[Asked]) -> None:
        counts: defaultdict[tuple[str, ...], Counter[tuple[str, ...]]] = defaultdict(Counter)
        for asked in training:
            for place in asked.places().values():
                counts[place][asked.targets] += 1
        # Of equally frequent answers the first in the alphabet, so that the order of the data does not matter.
        self.best = {place: min(c, key=lambda targets: (-c[targets], targets)) for place, c in counts.items()}

    def answer(self, asked: Asked, level: str) -> str:
        """The most frequent answer at a level, or at the next wider one where training never asked."""
        places = asked.places()
        for wider in reversed(LEVELS[: LEVELS.index(level) + 1]):
            if places[wider] in self.best:
                return " and ".join(self.best[places[wider]])
        return ""

    def score(self, test: Sequence[Asked]) -> tuple[Figure, str]:
        """The share of right answers at the level that does best on these very questions, and that level."""
        found = {
            level: share([is_right(QA(a.kind, a.question, "", a.targets, ""), self.answer(a, level)) for a in test])
            for level in LEVELS
        }
        best = max(LEVELS, key=lambda level: found[level]["value"])
        return found[best], best
