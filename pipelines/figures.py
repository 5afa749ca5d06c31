"""Fill the README's tables from the metrics: ``python -m pipelines.figures [--check]``.

The figures come from ``metrics/summary.json``, ``{name: {"value": ..., "n": ...}}``, the times from `pipelines.times`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from muomni.data.files import atomic_write_text, read_json
from muomni.errors import UserError
from pipelines.run import state_root
from pipelines.times import read_times

README, SUMMARY = Path("README.md"), Path("metrics/summary.json")
COMMAND = "`dvc repro evaluate`"


def rows(summary: Any) -> list[list[str]]:
    """Name, value, n and command of every figure.

    Raises:
        UserError: if the summary has no figure, or another form.
    """
    try:
        found = [
            [name.replace("_", " "), shown(one["value"]), f"{one['n']:,}", COMMAND] for name, one in summary.items()
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        found = []
    if not found:
        raise UserError(f"{SUMMARY}: holds no figures; run `dvc repro --force evaluate`")
    return found


def shown(value: float) -> str:
    """A value in four digits, a count as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(head: list[str], body: list[list[str]], right: int) -> str:
    """A Markdown table; the columns from number `right` on are aligned to the right, except the last."""
    rule = ["---:" if right <= column < len(head) - 1 else "---" for column in range(len(head))]
    cells = [head, rule, *([cell.replace("|", "\\|") for cell in row] for row in body)]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def times(folder: Path) -> str:
    """The table of each stage's last time and memory; empty if no stage has run."""
    records = read_times(folder)
    body = [[r["stage"], f"{r['seconds']:.0f}", f"{r['peak_mb']:,}", "`make times`"] for r in records]
    if not body:
        return ""
    total, peak = sum(r["seconds"] for r in records), max(r["peak_mb"] for r in records)
    body.append(["together", f"{total:.0f}", f"{peak:,}", "`make repro`"])
    return table(["Stage", "Seconds", "Peak MB", "Command"], body, right=1)


def replace(text: str, mark: str, content: str, page: str | Path = README) -> str:
    """Put content between ``<!-- mark -->`` and ``<!-- /mark -->`` of a page.

    Raises:
        UserError: if the markers are not there, or not in this order.
    """
    before, begin, rest = text.partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- /{mark} -->")
    if not (begin and end):
        raise UserError(f"{page}: has no <!-- {mark} --> followed by <!-- /{mark} -->; put the two lines in")
    return before + begin + content + end + after


def filled(text: str, summary: Any, times_folder: Path | None) -> str:
    """The README with its figures, and with times where a folder of them is given and not empty.

    Raises:
        UserError: if the summary has no figures, or markers are missing.
    """
    text = replace(text, "figures", table(["Figure", "Value", "n", "Command"], rows(summary), right=1))
    content = times(times_folder) if times_folder else ""
    return replace(text, "times", content) if content else text


def update(check: bool) -> None:
    """Write the README, or only compare its figures; its times are another machine's and are not compared.

    Raises:
        UserError: if something is missing, or with `check` if the figures differ.
    """
    if not README.is_file():
        raise UserError(f"{README}: no such file; run this in the root of the repository")
    text, summary = README.read_text(encoding="utf-8"), read_json(SUMMARY, "evaluate")
    new = filled(text, summary, None if check else state_root() / "times")
    if check and new != text:
        raise UserError(f"{README}: its figures differ from {SUMMARY}; run `python -m pipelines.figures`")
    if new != text:
        atomic_write_text(README, new)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fill the README's tables from metrics/summary.json.")
    parser.add_argument("--check", action="store_true", help="only compare the figures; exit code 2 if they differ")
    try:
        update(parser.parse_args().check)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
