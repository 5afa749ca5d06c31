"""Fill the README's tables from the metrics: ``python -m pipelines.figures [--check]``.

The figures come from ``metrics/summary.json``: mappings and lists of any depth, in which a mapping with a ``value`` is
one figure. It may have a ``name`` (else where it stands is its name), ``n`` (the number of samples) and ``command``
(what makes it). The times come from `pipelines.times`.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from muomni.data.files import atomic_write_text, read_json
from muomni.errors import UserError
from pipelines.run import state_root
from pipelines.times import read_times

README, SUMMARY = Path("README.md"), Path("metrics/summary.json")
COMMAND = "dvc repro evaluate"  # of a figure that names none


def rows(node: Any, name: str = "") -> Iterator[list[str]]:
    """Name, value, n and command of every figure, in the summary's order.

    Args:
        node: the summary or a part of it.
        name: where the part stands.
    """
    if isinstance(node, list):
        for item in node:
            yield from rows(item, name)
    elif isinstance(node, dict) and "value" in node:
        n = "" if node.get("n") is None else f"{node['n']:,}"
        command = node.get("command") or COMMAND
        yield [str(node.get("name") or name), shown(node["value"]), n, f"`{command}`"]
    elif isinstance(node, dict):
        for key, item in node.items():
            yield from rows(item, f"{name} {key}".strip())


def shown(value: Any) -> str:
    """A value as readers want it: four digits of a number, yes or no, else as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
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


def replace(text: str, mark: str, content: str) -> str:
    """Put content between ``<!-- mark -->`` and ``<!-- /mark -->``.

    Raises:
        UserError: if the markers are not there, or not in this order.
    """
    before, begin, rest = text.partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- /{mark} -->")
    if not (begin and end):
        raise UserError(f"{README}: has no <!-- {mark} --> followed by <!-- /{mark} -->; put the two lines in")
    return before + begin + content + end + after


def filled(text: str, summary: Any, times_folder: Path | None) -> str:
    """The README with its figures, and with times where a folder of them is given and not empty.

    Raises:
        UserError: if the summary has no figure, or markers are missing.
    """
    body = list(rows(summary))
    if not body:
        raise UserError(f"{SUMMARY}: holds no figure; run `dvc repro --force evaluate`")
    text = replace(text, "figures", table(["Figure", "Value", "n", "Command"], body, right=1))
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
