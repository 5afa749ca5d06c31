"""How a run learned, as a page: ``python -m pipelines.learning [RUN] [--page learning.html]``.

Without a run it is about the trainings of this checkout (`muomni learning`); with one, about those that MLflow has of
it: the key or id of a run, or the name of a DVC experiment. A stage taken from the cache has no run of its own there.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muomni.data.files import atomic_write_text
from muomni.errors import UserError, one_line
from muomni.passport.learning import learning_page
from muomni.passport.trainings import SAMPLES, Training, read_trainings
from pipelines.run import state_root
from pipelines.sender import KEY_TAG, METRICS, PARENT_TAG, experiment_id
from pipelines.versions import mlflow_errors, reading_client

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

TRAININGS = Path("metrics/train")
PAGE = "learning.html"


def page_of(folder: Path) -> str:
    """The page about the trainings of a checkout or a copy; empty if it has none.

    Args:
        folder: the checkout.
    """
    try:
        return learning_page(read_trainings([folder / TRAININGS]))
    except UserError:  # a run up to a stage before any training
        return ""


def find(client: "MlflowClient", name: str) -> "Run":
    """The newest run of MLflow that a user means.

    Raises:
        UserError: if there is none.
    """
    wanted = "".join(c for c in name if c.isalnum() or c in "-_.")
    for tag in (KEY_TAG, "dvc_exp"):
        found = client.search_runs([experiment_id(client)], f"tags.`{tag}` = '{wanted}'", order_by=["start_time DESC"])
        whole = [run for run in found if PARENT_TAG not in run.data.tags] or list(found)
        if whole:
            return whole[0]
    by_id = client.search_runs([experiment_id(client)], f"attributes.run_id = '{wanted}'")
    if not by_id:
        raise UserError(
            f"{name[:80]!r}: no run of this key, id or experiment; see the pages of MLflow, or `dvc exp list`"
        )
    return by_id[0]


def fetch_trainings(client: "MlflowClient", run: "Run", folder: Path) -> list[Training]:
    """What MLflow has of a run's trainings: of its children, or of itself.

    Args:
        client: of the tracker.
        run: of a whole graph, or of a stage.
        folder: empty, to download to.

    Raises:
        UserError: if it has no training.
    """
    children = client.search_runs([experiment_id(client)], f"tags.`{PARENT_TAG}` = '{run.info.run_id}'")
    for one in reversed(children or [run]):  # the newest is last, and counts
        fetch_training(client, one, folder)
    return read_trainings([folder])


def fetch_training(client: "MlflowClient", run: "Run", folder: Path) -> None:
    """Write a run's curves and samples as a training's state folder has them."""
    run_id = str(run.info.run_id)
    wanted = [key for key in run.data.metrics if key == "loss" or key.startswith("valid_")]
    rows: dict[int, dict[str, Any]] = {}
    for key in wanted:
        for point in client.get_metric_history(run_id, key):
            rows.setdefault(point.step, {"step": point.step, "time": point.timestamp / 1000})[key] = point.value
    target = folder / (Path(str(run.info.run_name)).name or run_id)
    if not rows:
        return
    target.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(rows[step]) + "\n" for step in sorted(rows))
    (target / METRICS).write_text("".join(lines), encoding="utf-8")
    if any(file.path == SAMPLES for file in client.list_artifacts(run_id)):
        client.download_artifacts(run_id, SAMPLES, str(target))


def write(run: str, page: Path) -> None:
    """Write the page.

    Args:
        run: as a user calls it; empty for this checkout.
        page: where to.

    Raises:
        UserError: if there is no such run, or no training.
    """
    if not run:
        atomic_write_text(page, learning_page(read_trainings([TRAININGS, state_root() / "state"])))
        return
    with mlflow_errors("run this again"), tempfile.TemporaryDirectory() as folder:
        client = reading_client()
        found = find(client, run)
        trainings = fetch_trainings(client, found, Path(folder))
        about = f"Run {found.data.tags.get(KEY_TAG, run)}, {found.info.run_name}, {found.info.status.lower()}."
        atomic_write_text(page, learning_page(trainings, about=about))


def main() -> None:
    """Write the page and print its name."""
    parser = argparse.ArgumentParser(description="Write a page of how a run learned.")
    parser.add_argument("run", nargs="?", default="", metavar="RUN", help="key, id or DVC experiment (default: here)")
    parser.add_argument("--page", default=PAGE, metavar="FILE.html", help="default: %(default)s")
    options = parser.parse_args()
    try:
        write(options.run, Path(options.page))
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    print(options.page)


if __name__ == "__main__":
    main()
