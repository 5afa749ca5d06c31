"""The MLflow run of a whole graph run, whose children are the runs of its stages.

A flow opens it in a folder, gives the folder's name to the stages (``MUOMNI_PARENT``), and closes it. The folder holds
what a stage's state folder does (`pipelines.tracking`), and ``artifacts/``, files of the run. Like there, all is
local first: a tracker that is away stops nothing, and what it did not get is sent later.
"""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from muomni.data.files import atomic_write_json
from muomni.errors import UserError
from muomni.train.report import MetricsFile, read_metrics
from pipelines import tracking
from pipelines.sender import ARTIFACTS, METRICS, RUN, connect, experiment_id, find_run, read
from pipelines.sync import claim_parent, set_aside

UI = "MUOMNI_MLFLOW_UI"  # address of MLflow's pages
OPENING = 10.0  # seconds that a flow waits for the tracker before it goes on
HURRY = 3.0  # seconds that one waits that was cancelled
_held: dict[Path, IO[str]] = {}  # what this process owns: gone with it, however it ends


def open_parent(folder: Path, name: str, params: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> str:
    """Begin the run of a graph run, or go on with the folder's unfinished one. Never fails for want of a tracker.

    Args:
        folder: of the parent; other processes of the graph run find it by the environment variable ``MUOMNI_PARENT``.
        name: of the run.
        params: nested parameters, JSON values.
        tags: further tags; a run that goes on gets them added.

    Returns:
        The run's key.

    Raises:
        UserError: if another process has opened it.
    """
    folder = folder.absolute()
    begin = time.monotonic()
    while True:  # `end_interrupted` may be sending what an earlier process left
        try:
            file = claim_parent(folder)
            break
        except UserError:
            if folder in _held or time.monotonic() - begin > OPENING:
                raise
            time.sleep(0.1)
    _held[folder] = file
    folder.mkdir(exist_ok=True)
    run = read(folder / RUN)
    if run and run["status"] == "FINISHED":
        set_aside(folder)
        shutil.rmtree(folder, ignore_errors=True)
        run = {}
    run = run or tracking.new_run(name, params)
    run |= {"tags": run["tags"] | dict(tags or {})}
    atomic_write_json(folder / RUN, run | {"status": None, "ended": None})
    send_once(folder, OPENING)
    return str(run["key"])


def close_parent(
    folder: Path,
    status: Literal["FINISHED", "FAILED", "KILLED"],
    metrics: Mapping[str, float] | None = None,
    artifacts: Sequence[Path] = (),
) -> None:
    """End the run. Never fails for want of a tracker.

    Args:
        folder: as given to `open_parent`.
        status: how it ended. One that did not finish goes on when the folder is opened again.
        metrics: figures of the whole.
        artifacts: files and folders to keep with the run; copied at once.
    """
    folder = folder.absolute()
    if metrics:
        number = len(read_metrics(folder / METRICS))  # one line each time that it is closed
        file = MetricsFile(folder / METRICS)
        file.write(number, {name: float(value) for name, value in metrics.items()})
        file.close()
    for path in artifacts:
        target = folder / ARTIFACTS / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        else:
            shutil.copy2(path, target)
    run = read(folder / RUN)
    if run:
        atomic_write_json(folder / RUN, tracking.ended(run, status))
        # Who cancels does not wait: what is not sent in a moment is sent later.
        send_once(folder, HURRY if status == "KILLED" else tracking.LAST_CHANCE)
        if status == "FINISHED":
            set_aside(folder)
    held = _held.pop(folder, None)
    if held is not None:
        held.close()


def log_child(
    folder: Path,
    parent: Path,
    name: str,
    params: Mapping[str, Any],
    *,
    status: Literal["FINISHED", "FAILED"],
    started: float,
    metrics: Mapping[str, float],
) -> None:
    """Log a stage that tracks nothing itself, data or evaluation, once it has ended.

    Args:
        folder: an empty or missing folder to work in; removed.
        parent: as given to `open_parent`.
        name: of the stage.
        params: nested parameters, JSON values.
        status: how it ended.
        started: when, seconds since 1970.
        metrics: of the whole stage.
    """
    whole = read(parent.absolute() / RUN)
    if not whole:
        return
    folder.mkdir(parents=True, exist_ok=True)
    run = tracking.new_run(name, params, {"revision": whole["tags"]["revision"]}) | {
        "parent": {key: whole[key] for key in ("key", "stage", "started", "tags")},
        "started": int(started * 1000),
    }
    if metrics:
        file = MetricsFile(folder / METRICS)
        file.write(0, dict(metrics))
        file.close()
    atomic_write_json(folder / RUN, tracking.ended(run, status))
    send_once(folder, OPENING)
    set_aside(folder)
    shutil.rmtree(folder, ignore_errors=True)


def send_once(folder: Path, seconds: float) -> None:
    """Try to send a folder's run, but not for longer than some seconds."""
    tracker = tracking.Tracker(folder)
    tracker.stopping.set()
    tracker.start()
    tracker.stop(seconds)
    tracker.leave()


def run_link(key: str) -> str | None:
    """The web address of the run with a key, if MLflow's pages are known (``MUOMNI_MLFLOW_UI``) and it has the run."""
    pages = os.environ.get(UI)
    if not pages or not key:
        return None
    try:
        client = connect()
        run_id = find_run(client, key)
        return f"{pages.rstrip('/')}/#/experiments/{experiment_id(client)}/runs/{run_id}" if run_id else None
    except Exception:  # a link is worth no failure
        return None
