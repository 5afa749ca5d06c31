"""MLflow, kept away from the training: a thread reads the local metrics file and sends what is new.

A training only ever writes to its state folder, so a tracker that is down or slow neither stops it nor slows
it, and loses nothing: what could not be sent is set aside and sent later (`pipelines.sync`), by the next training or
by ``muomni track sync``.

In a state folder::

    metrics.jsonl        written by the training
    metrics.sent.json    how far the tracker came, written by the sender
    run.json             the run's key, parameters, tags and parent, and how it ended
    samples/step-*/      files that show the progress, sent as artifacts
    checkpoints/step-*/  the weights at each evaluation, sent as models and then removed

A run has a key of its own, the tag ``muomni.run``, known before any tracker answers; cards name it.
"""

import hashlib
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from muomni.checkpoint import revision
from muomni.data.files import atomic_write_json
from pipelines.answers import reason
from pipelines.sender import KEY_TAG, RUN, Sender, read, shown_uri
from pipelines.sync import sync

INTERVAL = 5.0  # seconds between looks at the metrics file
LAST_CHANCE = 30.0  # seconds that a finished stage waits for the tracker
PARENT = "MUOMNI_PARENT"  # names the folder of the run that stages belong to, see `pipelines.parent_run`
RESUMED_TAG = "muomni.resumed_in"


def flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters as ``section.key`` to text."""
    out: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = str(value)
    return out


class Tracker(threading.Thread):
    """Sends every few seconds until it is stopped, then once more."""

    def __init__(self, folder: Path) -> None:
        super().__init__(name="tracking", daemon=True)
        self.sender = Sender(folder)
        self.stopping = threading.Event()
        self.silent, self.saying = False, threading.Lock()

    def run(self) -> None:
        """The thread's work."""
        pause = 0.0
        while not self.stopping.wait(pause):
            pause = INTERVAL if self.attempt() else min(60.0, 2 * pause + INTERVAL)
        if self.attempt():
            with suppress(Exception):
                sync(quiet=True)

    def attempt(self) -> bool:
        """Send; say so once if that fails."""
        try:
            self.sender.send()
            return True
        except Exception as error:
            self.say(reason(error))
            return False

    def say(self, why: str) -> None:
        """Tell why nothing is sent, once."""
        with self.saying:
            if not self.silent and not self.sender.abandoned:
                print(f"tracking: {shown_uri()}: {why}; metrics are kept and sent later", file=sys.stderr)
            self.silent = True

    def stop(self, seconds: float) -> None:
        """Have it send the rest, and wait for that."""
        self.stopping.set()
        self.join(seconds)
        if self.is_alive():
            self.say(f"not done within the last {seconds:g} s")

    def leave(self) -> None:
        """Have it write nothing into the folder any more, even if it still waits for an answer."""
        with self.sender.saving:
            self.sender.abandoned = True


def new_run(name: str, params: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a ``run.json`` says of a run that begins."""
    digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()
    key = uuid.uuid4().hex[:16]
    named = {"stage": name, "revision": revision(), "params_hash": digest[:12], KEY_TAG: key}
    if os.environ.get("DVC_EXP_NAME"):
        named["dvc_exp"] = os.environ["DVC_EXP_NAME"]
    now = int(time.time() * 1000)
    return {"key": key, "stage": name, "started": now, "params": flat(params), "tags": named | dict(tags or {})}


def ended(run: Mapping[str, Any], status: str) -> dict[str, Any]:
    """What a ``run.json`` says of a run that ends now; not before it began, though the clock may have been put back."""
    return {**run, "status": status, "ended": max(int(time.time() * 1000), run["started"])}


def with_parent(run: dict[str, Any]) -> dict[str, Any]:
    """A run that belongs to the parent that the environment names, unless it belongs to another already.

    What it takes to make the parent is kept in the run: the parent's own process may not reach the tracker.
    """
    parent = read(Path(os.environ.get(PARENT) or "/nowhere") / RUN)
    if not parent or run.get("parent", parent)["key"] != parent["key"]:
        more = {RESUMED_TAG: parent["key"]} if parent else {}
        return run | {"tags": run["tags"] | more}
    return run | {"parent": {name: parent[name] for name in ("key", "stage", "started", "tags")}}


@contextmanager
def track(stage: str, folder: Path, params: Mapping[str, Any], tags: Mapping[str, str] | None = None) -> Iterator[str]:
    """Track what a training writes into its state folder as one MLflow run.

    A folder with an unfinished run continues that run. The run ends FINISHED, or FAILED if the block raises.
    Call `set_aside` before the folder is removed.

    Args:
        stage: names the run.
        folder: the stage's state folder; it exists.
        params: nested parameters, JSON values.
        tags: further tags.

    Yields:
        The run's key.
    """
    path = folder / RUN
    run = with_parent(read(path) or new_run(stage, params, tags))
    atomic_write_json(path, run | {"status": None, "ended": None})
    tracker = Tracker(folder)
    tracker.start()
    status = "FAILED"
    try:
        yield run["key"]
        status = "FINISHED"
    finally:
        atomic_write_json(path, ended(run, status))
        tracker.stop(LAST_CHANCE)
        tracker.leave()
