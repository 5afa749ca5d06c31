"""A training that has ended is not lost while DVC has not noted its outputs."""

import shutil
from pathlib import Path

import pytest
import yaml
from test_tracking import Line, runs_with, stage

from muomni.checkpoint import load_checkpoint
from muomni.errors import UserError
from pipelines import run, sender
from pipelines.kept_states import clear
from pipelines.training import new_curves

ROOT = Path(__file__).resolve().parents[1]
NOTES = Path("dvc.lock")


@pytest.fixture(autouse=True)
def under_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, as a stage that dvc runs would see it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUOMNI_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("DVC_STAGE", "a-thinker")
    NOTES.write_text("before")


def test_a_rerun_before_dvc_has_noted_the_end_starts_at_the_end() -> None:
    metrics = stage(Line())
    first = load_checkpoint("checkpoints/thinker")
    for folder in ("checkpoints", "metrics"):  # dvc was killed; started again, it removes what lies there
        shutil.rmtree(folder)
    assert stage(Line(stop_at=0)) == metrics  # a single step would raise
    again = load_checkpoint("checkpoints/thinker")
    assert all(first.state[name].equal(tensor) for name, tensor in again.state.items())
    assert again.card == first.card
    assert Path("metrics/train/a-thinker/train.json").exists()
    assert runs_with(sender.connect(), first.card["run"]) == 1


def test_once_dvc_has_noted_it_a_rerun_trains() -> None:
    stage(Line())
    NOTES.write_text("after")
    with pytest.raises(UserError, match="stopped"):
        stage(Line(stop_at=0))


def test_other_stages_remove_what_is_noted_and_nothing_else() -> None:
    stage(Line())
    folder = run.state_root() / "state" / "a-thinker"
    clear()
    assert folder.exists()
    NOTES.write_text("after")
    clear()
    assert not folder.exists()


def test_a_state_that_did_not_end_stays() -> None:
    with pytest.raises(UserError, match="stopped"):
        stage(Line(stop_at=25))
    NOTES.write_text("after")
    clear()
    assert (run.state_root() / "state" / "a-thinker" / "state.safetensors").exists()


def test_what_a_killed_run_leaves_unfinished_lies_in_no_folder_that_another_stage_reads() -> None:
    """Found by killing: half-written curves in ``metrics/train`` were read by stage evaluate."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    read = {Path(dep) for entry in stages.values() for dep in entry["deps"]}
    with new_curves("a-thinker") as made:
        unfinished = {made} | {
            Path(out).parent / ".unfinished"
            for s in stages.values()
            for out in s.get("outs", [])
            if not out.startswith("metrics/train/")
        }
    assert not [(path, dep) for path in unfinished for dep in read if path.is_relative_to(dep)]
