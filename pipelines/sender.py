"""Sends a training's local metrics, samples and outcome to MLflow, each once however often it is tried.

MLflow keeps one copy of a point that comes twice with the same step, time and value, so sending again after a
crash is safe. Failures are exceptions for the caller, `pipelines.tracking`.
"""

import json
import logging
import os
import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muomni.data.files import atomic_write_json
from muomni.train.report import read_metrics

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "muomni"
KEY_TAG = "muomni.run"
BATCH = 1000  # points MLflow takes at once
RUN, SENT, METRICS, SAMPLES = "run.json", "metrics.sent.json", "metrics.jsonl", "samples"


def repository() -> Path:
    """The checkout whose ``mlruns`` folder is used: the working directory, or the one an experiment copies.

    ``dvc exp run --temp`` works in ``<checkout>/.dvc/tmp/exps/<name>``, which is removed afterwards.
    """
    here = Path.cwd()
    for parent in here.parents:
        if parent.parts[-3:] == (".dvc", "tmp", "exps"):
            return parent.parents[2]
    return here


def tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, or the sqlite file under the checkout's ``mlruns``."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{repository()}/mlruns/mlflow.db"


def shown_uri() -> str:
    """The tracker's address without user and password."""
    scheme, slashes, rest = tracking_uri().partition("://")
    return scheme + slashes + rest.rpartition("@")[2]


def connect() -> "MlflowClient":
    """A client of the tracker. Imports MLflow, which takes seconds."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # whoever calls tries again, and has the time
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    from mlflow.tracking import MlflowClient  # here, because it costs 5 s and belongs in the thread

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    uri = tracking_uri()
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(uri)


def experiment_id(client: "MlflowClient") -> str:
    """The id of the experiment ``muomni``, which is made if it is not there."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        local = tracking_uri().startswith("sqlite:")
        place = (repository() / "mlruns" / "artifacts").as_uri() if local else None
        with suppress(Exception):  # another process may have made it meanwhile
            return str(client.create_experiment(EXPERIMENT, artifact_location=place))
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            raise RuntimeError(f"cannot make the experiment {EXPERIMENT}")
    return str(found.experiment_id)


def find_run(client: "MlflowClient", key: str) -> str | None:
    """MLflow's id of the run with a key (``run`` in a checkpoint's card), or None."""
    runs = client.search_runs([experiment_id(client)], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None


def read(path: Path) -> dict[str, Any]:
    """A JSON object, empty if the file is missing or broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def tracked_name(name: str) -> str:
    """A metric's name in the characters that MLflow takes: one it refuses would hold back all points after it."""
    return re.sub(r"[^\w\-. :/]", "-", name)


class Sender:
    """Sends what a state folder holds beyond what was sent before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sent = read(folder / SENT)
        if self.sent.get("uri") != tracking_uri():
            self.sent = {"uri": tracking_uri(), "run_id": None, "metrics": {}, "samples": [], "status": None}
        self.client: MlflowClient | None = None
        self.saving = threading.Lock()
        self.abandoned = False  # once the folder is no longer this sender's

    def save(self) -> None:
        """Note how far it came."""
        with self.saving:
            if not self.abandoned:
                atomic_write_json(self.folder / SENT, self.sent)

    def open(self, run: dict[str, Any]) -> tuple["MlflowClient", str]:
        """Connect, and make the run or continue it."""
        from mlflow.entities import Param  # as in `connect`

        self.client = client = self.client or connect()
        if self.sent["run_id"] is None:
            run_id = find_run(client, run["key"])  # an earlier attempt may have made it and not noted it
            if run_id is None:
                created = client.create_run(
                    experiment_id(client), run["started"], tags=run["tags"], run_name=run["stage"]
                )
                run_id = str(created.info.run_id)
            params = [Param(key, value[:6000]) for key, value in run["params"].items()]
            for i in range(0, len(params), 100):
                client.log_batch(run_id, params=params[i : i + 100])
            self.sent["run_id"] = run_id
            self.save()
        run_id = str(self.sent["run_id"])
        if self.sent["status"] is not None and run["status"] is None:  # it failed and goes on
            client.update_run(run_id, status="RUNNING")
            self.sent["status"] = None
            self.save()
        return client, run_id

    def send(self) -> None:
        """Send new points and samples, and how the run ended if it has. An exception means: try later."""
        run = read(self.folder / RUN)
        client, run_id = self.open(run)
        self.send_metrics(client, run_id)
        for folder in sorted((self.folder / SAMPLES).glob("step-*")):
            if folder.name not in self.sent["samples"]:
                client.log_artifacts(run_id, str(folder), f"{SAMPLES}/{folder.name}")
                self.sent["samples"].append(folder.name)
                self.save()
        if run["status"] is not None and self.sent["status"] != run["status"]:
            client.set_terminated(run_id, run["status"], run["ended"])
            self.sent["status"] = run["status"]
            self.save()

    def send_metrics(self, client: "MlflowClient", run_id: str) -> None:
        """Send points whose step is beyond the last one sent of their name.

        A training that was killed and resumed writes some steps again, with the same values at another time;
        the comparison by step keeps those from being sent twice.
        """
        from mlflow.entities import Metric  # as in `connect`

        last: dict[str, int] = self.sent["metrics"]
        points = [
            Metric(tracked_name(name), float(value), int(line["time"] * 1000), line["step"])
            for line in read_metrics(self.folder / METRICS)
            for name, value in line.items()
            if name not in ("step", "time") and line["step"] > last.get(tracked_name(name), -1)
        ]
        for i in range(0, len(points), BATCH):
            batch = points[i : i + BATCH]
            client.log_batch(run_id, metrics=batch)
            last |= {point.key: point.step for point in batch}
            self.save()

    def complete(self) -> bool:
        """Whether the run has ended and all of it was sent."""
        status = read(self.folder / RUN).get("status")
        return status is not None and self.sent["status"] == status
