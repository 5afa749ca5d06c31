"""The registry as a user sees it: what there is, and how versions compare.

Promotion and rollback are in `pipelines.promotion` and can be had from here as well. For flows and commands alike:
these functions return data, and nothing is printed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from muomni.errors import UserError
from muomni.evaluate.measure import Figure
from muomni.evaluate.summary import direction
from pipelines.promotion import Decision, gain, promote, rollback
from pipelines.tables import shown, table
from pipelines.versions import Entry, aliases, entry, mlflow_errors, reading_client, registry_client, resolve, versions

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

__all__ = [
    "Comparison",
    "Decision",
    "Entry",
    "compare",
    "listing",
    "promote",
    "reading_client",
    "registry_client",
    "rollback",
    "shown_figure",
    "text_table",
]

LEGEND = "+ better, - worse than the first; ++ and -- where their intervals do not overlap; = equal."


def mark(name: str, figure: Figure, first: Figure) -> str:
    """A sign of `LEGEND` for a figure beside that of the first version; empty if neither way is better."""
    way = direction(name)
    if way == "neither":
        return ""
    found = gain(figure["value"], first["value"], way == "higher")
    if found == 0:
        return "="
    sign = "+" if found > 0 else "-"
    if "interval" not in figure or "interval" not in first:
        return sign
    low, high = figure["interval"]
    overlap = low <= first["interval"][1] and first["interval"][0] <= high
    return sign if overlap else 2 * sign


def shown_figure(figure: Figure) -> str:
    """A figure as text: ``0.87 [0.83, 0.9] n 400``."""
    ends = [f"{end:.4g}" for end in figure.get("interval", ())]
    return f"{shown(figure['value'])}{' [' + ', '.join(ends) + ']' if ends else ''} n {figure['n']}"


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as aligned text."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


@dataclass(frozen=True)
class Comparison:
    """Versions side by side.

    Attributes:
        name: the model that is meant where a label names none.
        entries: the versions; others are compared with the first.
    """

    name: str
    entries: Sequence[Entry]

    @property
    def same(self) -> bool:
        """Whether all were measured on the same held-out data; nothing compares otherwise."""
        return len({one.held_out for one in self.entries}) == 1

    @property
    def names(self) -> list[str]:
        """Every figure that any of them has, in the summary's order."""
        return list(dict.fromkeys(name for one in self.entries for name in one.figures))

    @property
    def labels(self) -> list[str]:
        """What each version is called above its column."""
        return [one.label(self.name) for one in self.entries]

    def mark(self, name: str, number: int) -> str:
        """The sign of a figure of the version with this number; empty for the first, and where nothing compares."""
        first, other = (self.entries[i].figures.get(name) for i in (0, number))
        return mark(name, other, first) if number and self.same and first and other else ""

    def head(self) -> list[str]:
        """The table's first line."""
        return ["figure", "better", *self.labels]

    def rows(self) -> list[list[str]]:
        """A line for each figure: its name, which way is better, and each version's value with its sign."""
        found = []
        for name in self.names:
            cells = []
            for number, one in enumerate(self.entries):
                figure, sign = one.figures.get(name), self.mark(name, number)
                cells.append(f"{shown_figure(figure)} {sign}".rstrip() if figure else "")
            way = direction(name)
            found.append([name, "" if way == "neither" else way, *cells])
        return found

    def note(self) -> str:
        """What the signs mean, or why there are none."""
        if self.same:
            return LEGEND
        which = ", ".join(f"{label}: {e.held_out[:12]}" for label, e in zip(self.labels, self.entries, strict=True))
        return f"Measured on different held-out data ({which}), so nothing is marked as better or worse."

    def text(self) -> str:
        """The table for a terminal."""
        return f"{text_table(self.head(), self.rows())}\n\n{self.note()}"

    def markdown(self) -> str:
        """The table in Markdown."""
        return f"{table(self.head(), self.rows(), right=len(self.head()))}\n{self.note()}\n"

    def chart(self, path: str | Path) -> None:
        """Draw every figure with its interval.

        Args:
            path: ends in ``.png``, or in ``.html`` for a page with the table and the picture in one file.

        Raises:
            UserError: if it ends in anything else or cannot be written.
        """
        from pipelines.registry_chart import write_chart  # here, since Matplotlib takes a second to import

        write_chart(self, Path(path))


def compare(client: "MlflowClient", name: str, refs: Sequence[str]) -> Comparison:
    """Put versions side by side.

    Args:
        client: of the registry, see `reading_client`.
        name: the model that is meant where a reference names none.
        refs: two or more, see `pipelines.versions.split`; the others are compared with the first.

    Raises:
        UserError: if there are too few, one does not exist or has no figures, or MLflow fails.
    """
    if len(refs) < 2:
        raise UserError("compare: name two versions at least, as in `muomni registry compare champion challenger`")
    with mlflow_errors("compare again"):
        entries = [resolve(client, name, ref) for ref in refs]
    for one in entries:
        if not one.figures:
            raise UserError(f"{one.title}: has no figures; `dvc repro --force register` gives them to today's version")
    return Comparison(name, entries)


def listing(client: "MlflowClient", name: str) -> list[Entry]:
    """All versions of a model and of its parts, the model's first, the newest first.

    Raises:
        UserError: if MLflow fails.
    """
    with mlflow_errors("list again"):
        models = [model.name for model in client.search_registered_models(f"name LIKE '{name}%'")]
        found = []
        for model in sorted(m for m in models if m == name or m.startswith(f"{name}-")):
            known = aliases(client, model)
            found += [entry(client, version, known) for version in reversed(versions(client, model))]
        return found
