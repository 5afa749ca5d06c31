"""Error rates of transcripts."""

from collections.abc import Sequence


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Fewest insertions, deletions and substitutions from ``a`` to ``b`` (Levenshtein, 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Edits by character over all texts, divided by the references' characters.

    Raises:
        ValueError: if the numbers differ or the references are empty.
    """
    return _rate(list(references), list(hypotheses))


def _rate(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> float:
    total = sum(len(r) for r in references)
    if len(references) != len(hypotheses) or not total:
        raise ValueError(f"{len(references)} references of {total} symbols, {len(hypotheses)} hypotheses")
    return sum(edit_distance(r, h) for r, h in zip(references, hypotheses, strict=True)) / total
