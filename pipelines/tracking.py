"""MLflow, kept away from the training: a thread reads the local metrics file and sends what is new.

A training only ever writes to its state folder, so a tracker that is down or slow neither stops it nor slows
it, and loses nothing: what could not be sent is set aside and sent later, by the next training or by
``python -m pipelines.tracking sync``.

In a state folder::

    metrics.jsonl        written by the training
    metrics.sent.json    how far the tracker came, written by the sender
    run.json             the run's key, parameters and tags, and how it ended
    samples/step-*/      files that show the progress, sent as artifacts

A run has a key of its own, the tag ``muomni.run``, known before any tracker answers; cards name it.
"""

import argparse
import hashlib
import json
import os
import shutil
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
from muomni.errors import UserError
from muomni.train.report import read_metrics
from pipelines.run import state_root, take_lock
from pipelines.sender import KEY_TAG, METRICS, RUN, SAMPLES, SENT, Sender, read, shown_uri

INTERVAL = 5.0  # seconds between looks at the metrics file
LAST_CHANCE = 30.0  # seconds that a finished stage waits for the tracker


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
        self.silent = False

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
            if not self.silent and not self.sender.abandoned:
                reason = " ".join(str(error).split())[:200]
                print(f"tracking: {shown_uri()}: {reason}; metrics are kept and sent later", file=sys.stderr)
            self.silent = True
            return False

    def stop(self, seconds: float) -> None:
        """Have it send the rest, and wait for that."""
        self.stopping.set()
        self.join(seconds)


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
    run = read(path)
    if not run:
        digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()
        key = uuid.uuid4().hex[:16]
        named = {"stage": stage, "revision": revision(), "params_hash": digest[:12], KEY_TAG: key}
        if os.environ.get("DVC_EXP_NAME"):
            named["dvc_exp"] = os.environ["DVC_EXP_NAME"]
        now = int(time.time() * 1000)
        run = {
            "key": key,
            "stage": stage,
            "started": now,
            "params": flat(params),
            "tags": named | dict(tags or {}),
        }
    atomic_write_json(path, run | {"status": None, "ended": None})
    tracker = Tracker(folder)
    tracker.start()
    status = "FAILED"
    try:
        yield run["key"]
        status = "FINISHED"
    finally:
        atomic_write_json(path, run | {"status": status, "ended": int(time.time() * 1000)})
        tracker.stop(LAST_CHANCE)
        with tracker.sender.saving:
            tracker.sender.abandoned = True


def unsent_root() -> Path:
    """Where runs wait that could not be sent."""
    return state_root() / "unsent"


def set_aside(folder: Path) -> None:
    """Keep what was not sent of a state folder's run, before the folder is removed."""
    run = read(folder / RUN)
    if not run or Sender(folder).complete():
        return
    if run["status"] is None:  # killed, and its state is of no use any more
        lines = read_metrics(folder / METRICS)
        ended = int(lines[-1]["time"] * 1000) if lines else run["started"]
        atomic_write_json(folder / RUN, run | {"status": "KILLED", "ended": ended})
    target = unsent_root() / f"{run['stage']}-{run['key']}"
    target.mkdir(parents=True, exist_ok=True)
    for name in (METRICS, SENT, SAMPLES, RUN):  # run.json last: `sync` looks for it
        if (folder / name).exists():
            shutil.move(folder / name, target / name)


def sync(quiet: bool = False) -> tuple[int, int]:
    """Send what was set aside, and what interrupted stages hold; whole runs are removed when they are sent.

    Returns:
        Number of runs that were sent, and number of those that could not be.
    """
    sent = failed = 0
    waiting = [path.parent for path in sorted(unsent_root().glob(f"*/{RUN}"))]
    with take_lock("tracking-sync"):
        for folder in waiting:
            sender = Sender(folder)
            try:
                sender.send()
            except Exception as error:
                failed += 1
                if not quiet:
                    print(f"{folder.name}: {' '.join(str(error).split())[:300]}", file=sys.stderr)
                continue
            sent += 1
            shutil.rmtree(folder)
    return sent, failed


def sync_interrupted() -> int:
    """Send what stages hold that were interrupted and not started again; returns how many."""
    count = 0
    for path in sorted((state_root() / "state").glob(f"*/{RUN}")):
        with suppress(UserError), take_lock(path.parent.name):  # a running stage sends for itself
            Sender(path.parent).send()
            count += 1
    return count


def main() -> None:
    """The command ``sync``."""
    parser = argparse.ArgumentParser(description="Send metrics to MLflow that could not be sent while training.")
    parser.add_argument("command", choices=["sync"])
    parser.parse_args()
    try:
        sent, failed = sync()
        if failed:
            raise UserError(f"{shown_uri()}: {failed} runs not sent, they stay in {unsent_root()}; try again later")
        print(f"sent {sent} runs that waited and {sync_interrupted()} interrupted ones to {shown_uri()}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
