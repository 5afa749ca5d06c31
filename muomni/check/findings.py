"""What a check of data finds: figures, problems with the items that have them, and samples to look at."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from muomni.data.badsamples import LONGEST
from muomni.errors import one_line, shortened

# How bad a problem is, and what to do. `aside`: the stage sets these items aside, and stops if they are over the limit;
# `spoils`: it takes them, and a share over the limit spoils what is learned; `always`: one is enough; `note`: no harm.
PROBLEMS: dict[str, tuple[str, str]] = {
    "cannot be used": ("aside", "mend them, or take them out of the table"),
    "too few": ("always", "give more"),
    "split is empty": ("always", "give more, or other splits"),
    "same item in two splits": ("always", "keep one: what is tested was learned"),
    "near copy of a held-out item": ("spoils", "take it out of training: what is tested was nearly learned"),
    "same item twice": ("spoils", "keep one"),
    "one sound with two texts": ("spoils", "keep the right text"),
    "held-out sentence in training": ("note", "nothing: it is left out of training"),
    "clipped": ("spoils", "record it again with less gain"),
    "very quiet": ("spoils", "record it again with more gain: making it loud makes its noise loud"),
    "text too long for the sound": ("spoils", "is the text of another recording, or the recording cut off?"),
    "letters that are not learned": ("spoils", "write it in the letters a to z, as it is said"),
    "other letters than expected": ("spoils", "take it out, or name its script with --script"),
    "characters that the tokenizer lacks": ("spoils", "train a tokenizer on these texts, or replace the characters"),
    "low sample rate": ("note", "record at 16 kHz or more, if it can be had: the highest sounds are missing"),
    "sound without a text": ("note", "write its text into the table, if it shall be learned"),
    "too long for the context": ("spoils", "make it shorter: stage e-omni leaves it out"),
    "tiny picture": ("spoils", "give a larger one: it is made larger by blurring"),
    "huge picture": ("note", "make it smaller, if reading takes too long"),
    "no licence is stated": ("note", "put a LICENSE file beside the data"),
}


@dataclass(frozen=True)
class Finding:
    """One item with a problem; the larger its weight, the worse."""

    item: str
    reason: str
    weight: float = 0.0


@dataclass(frozen=True)
class Sample:
    """Something to hear or see on the page.

    Attributes:
        label: what it is.
        text: what is said or shown.
        kind: for example ``audio/mpeg``, ``image/png``; empty for text alone.
        data: its bytes.
    """

    label: str
    text: str
    kind: str = ""
    data: bytes = b""


@dataclass
class Section:
    """What was found of one source.

    Attributes:
        what: text, speech, pictures or conversations.
        source: how it is read, a value of ``<what>.source``.
        address: where it is.
        total: items, the bad ones among them.
        facts: figures by name.
        tables: by title, rows of equal length, the first one a head.
        histograms: by title, numbers.
        problems: by name, the items.
        samples: for the page.
    """

    what: str
    source: str
    address: str
    total: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, list[list[Any]]] = field(default_factory=dict)
    histograms: dict[str, list[float]] = field(default_factory=dict)
    problems: dict[str, list[Finding]] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    def add(self, problem: str, item: str, reason: str, weight: float = 0.0) -> None:
        """Note that an item has a problem, one of `PROBLEMS`."""
        assert problem in PROBLEMS, problem
        line = Finding(shortened(one_line(item), LONGEST), shortened(one_line(reason), LONGEST), weight)
        self.problems.setdefault(problem, []).append(line)

    def worst(self, problem: str, most: int) -> list[Finding]:
        """The items that have it most."""
        return sorted(self.problems[problem], key=lambda found: (-found.weight, found.item))[:most]

    def share(self, problem: str) -> float:
        """How many of all items have it, 0 to 1."""
        return len(self.problems[problem]) / max(self.total, 1)

    def fails(self, problem: str, limit: float) -> bool:
        """Whether it would stop or spoil a training, if a share up to `limit` does no harm."""
        severity = PROBLEMS[problem][0]
        return severity == "always" or (severity != "note" and self.share(problem) > limit)

    def as_json(self, limit: float, most: int = 100) -> dict[str, Any]:
        """All but the samples; of each problem's items the worst."""
        problems = {
            name: {
                "count": len(found),
                "share": round(self.share(name), 5),
                "fails": self.fails(name, limit),
                "reasons": dict(Counter(one.reason for one in found).most_common(20)),
                "worst": [{"item": one.item, "reason": one.reason} for one in self.worst(name, most)],
            }
            for name, found in self.problems.items()
        }
        head = {"what": self.what, "source": self.source, "address": self.address, "items": self.total}
        return {**head, "facts": self.facts, "tables": self.tables, "problems": problems}


def lines(section: Section, limit: float, most: int = 3) -> list[str]:
    """A section as lines for a terminal."""
    out = [f"{section.what}: {section.source} at {one_line(section.address)}"]
    out += [f"  {name}: {value}" for name, value in section.facts.items()]
    for title, rows in section.tables.items():
        out.append(f"  {title}: " + "; ".join(" ".join(map(str, row)) for row in rows[1:6]))
        if len(rows) > 6:
            out[-1] += f"; and {len(rows) - 6} more"
    for name, found in section.problems.items():
        word = "STOPS" if PROBLEMS[name][0] in ("aside", "always") else "SPOILS"
        mark = word if section.fails(name, limit) else "note"
        out.append(f"  {mark}: {name}: {len(found):,} ({section.share(name):.2%}); {PROBLEMS[name][1]}")
        out += [f"    {one.item}: {one.reason}" for one in section.worst(name, most)]
    return out
