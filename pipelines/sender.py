"""Sends a run's local metrics, weights, samples and outcome to MLflow, each once however often it is tried.

MLflow keeps one copy of a point that comes twice with the same step, time and value, and a line of the metrics file
never changes, so sending again is safe: after a crash, or when an answer did not come. What MLflow would make twice
(runs, models) is looked up first, and doubles are removed. Failures are exceptions for the caller.
"""

import fcntl
import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muomni.data.files import atomic_write_json
from muomni.train.report import read_metrics
from pipelines.addresses import userinfo, without_userinfo
from pipelines.answers import NotMLflow, arrived, bound_answers, points_arrived, send_files, the_run
from pipelines.logged_checkpoints import log_checkpoint
from pipelines.run import common_root

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "muomni"
KEY_TAG = "muomni.run"
BATCH = 1000  # points MLflow takes at once
PARENT_TAG = "mlflow.parentRunId"
RUN, SENT, METRICS, SAMPLES = "run.json", "metrics.sent.json", "metrics.jsonl", "samples"
CHECKPOINTS, ARTIFACTS = "checkpoints", "artifacts"


def repository() -> Path:
    """The checkout whose ``mlruns`` folder is used: the working directory, or the one that it is a copy of.

    ``dvc exp run --temp`` works in ``<checkout>/.dvc/tmp/exps/<name>``, which is removed afterwards. Other runs in
    copies set ``MUOMNI_CHECKOUT``.
    """
    if os.environ.get("MUOMNI_CHECKOUT"):
        return Path(os.environ["MUOMNI_CHECKOUT"]).absolute()
    here = Path.cwd()
    for parent in here.parents:
        if parent.parts[-3:] == (".dvc", "tmp", "exps"):
            return parent.parents[2]
    return here


def tracking_uri() -> str:
    """``MLFLOW_TRACKING_URI``, or the sqlite file under the checkout's ``mlruns``.

    A server's user and password go where MLflow's client takes them from, too: its errors tell the address.
    """
    found = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{repository()}/mlruns/mlflow.db"
    if found.startswith("http") and (shown := without_userinfo(found)) != found:
        user, password = userinfo(found)
        os.environ |= {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
        os.environ["MLFLOW_TRACKING_URI"] = found = shown
    return found


def shown_uri() -> str:
    """The tracker's address without user and password."""
    return without_userinfo(tracking_uri())


def connect() -> "MlflowClient":
    """A client of the tracker. Imports MLflow, which takes seconds."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # whoever calls tries again, and has the time
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    from mlflow.tracking import MlflowClient  # here, because it costs 5 s and belongs in the thread

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    bound_answers()
    uri = tracking_uri()
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(uri)


def experiment_id(client: "MlflowClient") -> str:
    """The id of the experiment ``muomni``, which is made if it is not there.

    Raises:
        NotMLflow: if what answers is something else.
    """
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        # A server knows where artefacts lie. Who writes to a database has to say it: the folder may be a copy's.
        root = os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT") or (repository() / "mlruns" / "artifacts").as_uri()
        place = None if tracking_uri().startswith("http") else root
        with suppress(Exception):  # another process may have made it meanwhile
            client.create_experiment(EXPERIMENT, artifact_location=place)
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            raise NotMLflow(f"it does not make the experiment {EXPERIMENT}; is this MLflow's address?")
    if found.name != EXPERIMENT or not found.experiment_id:
        raise NotMLflow("it answers, but not as MLflow does: it was asked for an experiment and gave something else")
    return str(found.experiment_id)


def find_run(client: "MlflowClient", key: str) -> str | None:
    """MLflow's id of the run with a key (``run`` in a checkpoint's card), or None."""
    runs = client.search_runs([experiment_id(client)], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None


@contextmanager
def making() -> Iterator[None]:
    """One process at a time, so that a run that two need is made once."""
    path = common_root() / "tracking.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_run(client: "MlflowClient", run: dict[str, Any]) -> str:
    """MLflow's id of a run, which is made if it is not there.

    Args:
        client: of the tracker.
        run: ``key``, ``stage`` (its name), ``started`` and ``tags``, as in a ``run.json``.
    """
    with making():
        found = find_run(client, run["key"])
        if found is not None:
            return found
        made = client.create_run(experiment_id(client), run["started"], tags=run["tags"], run_name=run["stage"])
        return str(the_run(client, str(made.info.run_id), run["key"], KEY_TAG).info.run_id)


def drop_doubles(client: "MlflowClient", key: str, keep: str) -> None:
    """Remove empty runs of the same key: a request whose answer came too late was carried out, and sent again."""
    experiment = experiment_id(client)
    for double in client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'"):
        if double.info.run_id != keep:
            for child in client.search_runs([experiment], f"tags.`{PARENT_TAG}` = '{double.info.run_id}'"):
                client.set_tag(child.info.run_id, PARENT_TAG, keep)
            client.delete_run(double.info.run_id)


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


def nothing_sent() -> dict[str, Any]:
    """What a sender notes that begins: the address, MLflow's id of the run, and how far each kind of thing came."""
    return {"uri": shown_uri(), "run_id": None, "metrics": {}, "samples": [], "status": None}


class Sender:
    """Sends what a state folder holds beyond what was sent before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sent = read(folder / SENT)
        if without_userinfo(self.sent.get("uri") or "") != shown_uri():
            self.sent = nothing_sent()
        self.sent["uri"] = shown_uri()  # files are no place for a password
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
        from mlflow.entities import Param, RunTag  # as in `connect`

        self.client = client = self.client or connect()
        if self.sent["run_id"] is None:
            run_id = make_run(client, run)
            drop_doubles(client, run["key"], run_id)
            params = [Param(key, value[:6000]) for key, value in run["params"].items()]
            for i in range(0, len(params), 100):
                client.log_batch(run_id, params=params[i : i + 100])
            arrived("parameters", run["params"], the_run(client, run_id, run["key"], KEY_TAG).data.params)
            self.sent["run_id"] = run_id
            self.save()
        run_id = str(self.sent["run_id"])
        parent = run.get("parent")
        if parent and self.sent.get("parent") != parent["key"]:
            client.set_tag(run_id, PARENT_TAG, make_run(client, parent))
            self.sent["parent"] = parent["key"]
            self.save()
        if self.sent.get("tags") != run["tags"]:  # one that goes on may have more
            client.log_batch(run_id, tags=[RunTag(key, value) for key, value in run["tags"].items()])
            arrived("tags", run["tags"], the_run(client, run_id, run["key"], KEY_TAG).data.tags)
            self.sent["tags"] = run["tags"]
            self.save()
        if self.sent["status"] is not None and run["status"] is None and not self.abandoned:  # ended, and goes on
            client.update_run(run_id, status="RUNNING")
            self.sent["status"] = None
            self.save()
        return client, run_id

    def send(self) -> None:
        """Send all that is new, and how the run ended if it has. An exception means: try later."""
        try:
            self.send_new(read(self.folder / RUN))
        except Exception as error:
            if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":  # another database is there: all again
                self.sent = nothing_sent()
                self.save()
            raise

    def send_new(self, run: dict[str, Any]) -> None:
        """Send what was not sent yet of a run."""
        client, run_id = self.open(run)
        self.send_metrics(client, run_id, run)
        self.send_checkpoints(client, run_id, run)
        for folder in sorted((self.folder / SAMPLES).glob("step-*")):
            if folder.name not in self.sent["samples"]:
                place = the_run(client, run_id, run["key"], KEY_TAG).info.artifact_uri
                send_files(client, place, folder, f"{SAMPLES}/{folder.name}")
                self.sent["samples"].append(folder.name)
                self.save()
        self.send_artifacts(client, run_id, run)
        if run["status"] is not None and not self.told(run):
            drop_doubles(client, run["key"], run_id)
            client.set_terminated(run_id, run["status"], run["ended"])
            arrived("the end", [run["status"]], [the_run(client, run_id, run["key"], KEY_TAG).info.status])
            self.sent |= {"status": run["status"], "ended": run["ended"]}
            self.save()

    def send_metrics(self, client: "MlflowClient", run_id: str, run: dict[str, Any]) -> None:
        """Send points whose step is beyond the last one sent of their name."""
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
            points_arrived(the_run(client, run_id, run["key"], KEY_TAG), batch, points[i + BATCH :])
            last |= {point.key: point.step for point in batch}
            self.save()

    def send_checkpoints(self, client: "MlflowClient", run_id: str, run: dict[str, Any]) -> None:
        """Send the weights of each evaluation as a model with its metrics, and remove them here."""
        root = self.folder / CHECKPOINTS
        lines = {line["step"]: line for line in read_metrics(self.folder / METRICS)}
        sent = self.sent.setdefault("checkpoints", [])
        for path in sorted((*root.glob(".sending-step-*"), *root.glob("step-*")), key=lambda p: p.name[-6:]):
            step = int(path.name.rpartition("-")[2])
            if step not in lines:
                continue  # the evaluation is under way
            taken = root / f".sending-step-{step:06d}"
            if path != taken:
                shutil.rmtree(taken, ignore_errors=True)
                try:
                    path.rename(taken)
                except FileNotFoundError:
                    continue  # the training has just removed it
            if step not in sent:
                found = {tracked_name(name): value for name, value in lines[step].items() if name.startswith("valid_")}
                log_checkpoint(client, experiment_id(client), run_id, run, taken, lines[step], found)
                sent.append(step)
                self.save()
            shutil.rmtree(taken, ignore_errors=True)

    def send_artifacts(self, client: "MlflowClient", run_id: str, run: dict[str, Any]) -> None:
        """Send the files and folders in ``artifacts``, again if one has changed."""
        sent = self.sent.setdefault("artifacts", {})
        for path in sorted((self.folder / ARTIFACTS).glob("*")):
            files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
            state = [[p.stat().st_size, p.stat().st_mtime_ns] for p in files]
            if sent.get(path.name) == state:
                continue
            place = the_run(client, run_id, run["key"], KEY_TAG).info.artifact_uri
            send_files(client, place, path, None if path.is_file() else path.name)
            sent[path.name] = state
            self.save()

    def told(self, run: dict[str, Any]) -> bool:
        """Whether MLflow knows of this end, and not only of an earlier one of a run that went on."""
        return bool(self.sent["status"] == run["status"] and self.sent.get("ended") == run["ended"])

    def complete(self) -> bool:
        """Whether the run has ended and all of it was sent."""
        run = read(self.folder / RUN)
        return run.get("status") is not None and self.told(run)
