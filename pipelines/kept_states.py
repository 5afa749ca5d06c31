"""The state of a training that has ended, kept until DVC has its outputs.

Between a stage's end and DVC's own notes lie seconds in which dvc may be killed. It would then remove the outputs and
run the stage from the start; with the state still there, that start is the end, and hours of training are not lost.
"""

from pathlib import Path

from muomni.data.files import atomic_write_json, read_json, sha256_file
from muomni.errors import UserError
from muomni.train import state
from pipelines.run import state_root
from pipelines.sync import set_aside

ENDED, DVC_LOCK = "ended.json", Path("dvc.lock")


def noted() -> str:
    """The hash of DVC's notes of results in this folder; empty if it has none."""
    return sha256_file(DVC_LOCK) if DVC_LOCK.is_file() else ""


def keep(folder: Path) -> None:
    """Mark a stage's state as that of a training whose outputs are written."""
    atomic_write_json(folder / ENDED, {"dvc_lock_sha256": noted()})


def clear(root: Path | None = None) -> None:
    """Remove the states of ended trainings since whose end DVC has noted something: their outputs, as a rule.

    Args:
        root: the state folder; by default `state_root`.
    """
    for mark in (root or state_root()).glob(f"state/[!.]*/{ENDED}"):
        try:
            then = read_json(mark, mark.parent.name)["dvc_lock_sha256"]
        except (UserError, KeyError, TypeError):
            then = None
        if then != noted():
            set_aside(mark.parent)
            state.finish(mark.parent)
