"""Compare the last trainings of a stage in MLflow: ``python -m pipelines.compare_runs d-codec [--last 2]``.

Prints the parameters that differ and what the last evaluation of each found. Versions of the whole model are compared,
with intervals, by ``muomni registry compare``; this is for a change of one stage, before anything else is trained.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from muomni.errors import UserError
from pipelines.sender import connect, experiment_id

if TYPE_CHECKING:
    from mlflow.entities import Run


def last_runs(stage: str, count: int) -> list["Run"]:
    """The last finished trainings of a stage, the oldest first.

    Raises:
        UserError: if there are fewer than two.
    """
    client = connect()
    asked = f"tags.stage = '{stage}' and attributes.status = 'FINISHED'"
    found = client.search_runs(
        [experiment_id(client)], asked, max_results=count, order_by=["attributes.start_time DESC"]
    )
    if len(found) < 2:
        raise UserError(
            f"{stage}: {len(found)} finished trainings in MLflow, 2 are needed; run `dvc exp run` with a change"
        )
    return list(reversed(found))


def label(run: "Run") -> str:
    """The name of the DVC experiment that a run belongs to, or the beginning of its own id."""
    return str(run.data.tags.get("dvc_exp") or run.info.run_id[:8])


def rows(
    labels: Sequence[str], params: Sequence[Mapping[str, str]], metrics: Sequence[Mapping[str, float]]
) -> list[list[str]]:
    """A head, the parameters that differ, and the metrics of the last evaluation."""
    names = sorted({name for one in params for name in one})
    table = [["", *labels]]
    for name in names:
        values = [one.get(name, "-") for one in params]
        if len(set(values)) > 1:
            table.append([name, *values])
    found = sorted({name for one in metrics for name in one if name.startswith("valid_")})
    return table + [[name, *(f"{one[name]:.4g}" if name in one else "-" for one in metrics)] for name in found]


def text(table: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be, numbers to the right."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = []
    for first, *rest in table:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Compare the last trainings of a stage in MLflow.")
    parser.add_argument("stage", help="as in dvc.yaml, for example d-codec")
    parser.add_argument("--last", type=int, default=2, help="how many of them")
    args = parser.parse_args(words)
    runs: list[Any] = last_runs(args.stage, max(2, args.last))
    table = rows([label(run) for run in runs], [run.data.params for run in runs], [run.data.metrics for run in runs])
    sys.stdout.write(text(table))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
