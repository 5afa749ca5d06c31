"""Tell Prefect of runs whose process is gone.

A flow's process holds a lock, ``.muomni/flows/<flow run id>``, as long as it lives (`alive`). A run that Prefect shows
as going on while nobody holds its lock was killed, or the machine was restarted: it has crashed. Runs without such a
file are somebody else's, on another machine for example, and are left alone.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from pipelines import locks

SETTLED = 1.0  # seconds after which a lock's file is locked, or its holder gone


def flows_root(state: Path) -> Path:
    """Where the locks are."""
    return state / "flows"


@contextmanager
def alive(state: Path, flow_run: str) -> Iterator[None]:
    """Hold a flow run's lock while the block runs."""
    path = flows_root(state) / flow_run
    with locks.held(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def gone(state: Path) -> list[Path]:
    """The locks of flow runs that nobody holds any more: their processes were killed."""
    return [path for path in flows_root(state).glob("*") if dead(path)]


def dead(path: Path) -> bool:
    """Whether nobody holds a flow run's lock. A file that was made this moment is about to be locked."""
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > SETTLED and locks.holder(path) is None
    return False


def set_state(api: httpx.Client, flow_run: str, kind: str, name: str, message: str) -> None:
    """Put a run into a state, whatever it was in.

    Args:
        api: asks the Prefect API.
        flow_run: the run's id.
        kind: of state, as Prefect knows it: ``CRASHED``, ``CANCELLED``, ``SCHEDULED``.
        name: of the state on the page.
        message: why, for people.

    Raises:
        httpx.HTTPError: if that fails.
    """
    state = {"type": kind, "name": name, "message": message}
    answer = api.post(f"flow_runs/{flow_run}/set_state", json={"state": state, "force": True})
    answer.raise_for_status()


def open_runs(api: httpx.Client, pool: str) -> list[dict[str, Any]]:
    """The pool's runs that Prefect believes to be going on."""
    wanted = {
        "flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}},
        "work_pools": {"name": {"any_": [pool]}},
    }
    answer = api.post("flow_runs/filter", json=wanted)
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()
    return found


def reap(api: httpx.Client, pool: str, state: Path, starting: bool = False) -> list[str]:
    """Give every dead run its end.

    Args:
        api: asks the Prefect API.
        pool: whose runs.
        state: the state folder.
        starting: no worker runs yet, so a run that was handed to one goes back into the queue.

    Returns:
        Ids of the runs that were dead.

    Raises:
        httpx.HTTPError: if Prefect does not answer.
    """
    ended = []
    for run in open_runs(api, pool):
        path, kind = flows_root(state) / run["id"], run["state_type"]
        if dead(path):
            if kind == "CANCELLING":
                set_state(api, run["id"], "CANCELLED", "Cancelled", "its process is gone")
            else:
                message = "its process was killed, or the machine restarted; the same run started again goes on"
                set_state(api, run["id"], "CRASHED", "Crashed", message)
            ended.append(run["id"])
        elif starting and kind == "PENDING":
            set_state(api, run["id"], "SCHEDULED", "Scheduled", "its worker was gone before it began")
            ended.append(run["id"])
    return ended
