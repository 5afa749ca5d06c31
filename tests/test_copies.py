"""Copies of a revision: real git and DVC in a small project."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fake_project import environment, make_project, run

from muomni.errors import UserError
from pipelines import copies, locks
from pipelines.copies import Copy


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, which is the working directory, with a state folder of its own."""
    folder = tmp_path / "project"
    folder.mkdir()
    make_project(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MUOMNI_STATE", str(folder / ".muomni"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    return folder


def make(checkout: Path, key: str = "k") -> Copy:
    """The place of a copy of the last commit."""
    return Copy(checkout, copies.resolve(checkout, "HEAD"), copies.runs_root() / key, key)


def test_revisions_are_found_by_every_name_and_unknown_ones_refused(checkout: Path, tmp_path: Path) -> None:
    head = run(checkout, "git", "rev-parse", "HEAD").strip()
    run(checkout, "git", "tag", "first")
    assert {copies.resolve(checkout, name) for name in ("HEAD", "main", "first", head[:8])} == {head}
    for name in ("no-such", "--help", "", "HEAD^{tree}"):
        with pytest.raises(UserError, match="no such commit, tag, branch or experiment"):
            copies.resolve(checkout, name)
    with pytest.raises(UserError, match="no DVC repository"):
        copies.resolve(tmp_path, "HEAD")


def test_a_copy_is_the_revision_and_not_the_checkout(checkout: Path) -> None:
    (checkout / "fake/words.py").write_text("broken")
    (checkout / "new.txt").write_text("new")
    assert copies.uncommitted(checkout) == ["fake/words.py", "new.txt"]
    copy = make(checkout)
    copies.lay_out(copy, "seed: 3\n")
    assert "words of seed" in (copy.folder / "fake/words.py").read_text() and not (copy.folder / "new.txt").exists()
    assert (copy.folder / "params.yaml").read_text() == "seed: 3\n"
    assert copies.dvc(copy.folder, "cache", "dir").strip() == str(copies.cache_of(checkout))
    assert run(copy.folder, "git", "config", "user.name").strip() == "A Person"
    assert not (checkout / ".dvc/config.local").exists()
    env = copy.env()
    assert env["MUOMNI_STATE"] == str(copy.state) and env["MUOMNI_CHECKOUT"] == str(checkout)
    assert env["PYTHONPATH"].split(os.pathsep)[0] == str(copy.folder)
    copies.take_away(copy, finished=False)
    assert copy.state.is_dir() and not copy.folder.exists()
    copies.take_away(copy, finished=True)
    assert not copy.state.exists()


def test_an_experiment_comes_home_under_its_name(checkout: Path) -> None:
    copy = make(checkout)
    params = (checkout / "params.yaml").read_text().replace("seed: 0\n", "seed: 4\n", 1)
    copies.lay_out(copy, params)
    copies.dvc(copy.folder, "repro", "words")
    commit = copies.save_experiment(copy, "mine", ["words"], "a try")
    copies.take_away(copy, finished=True)
    assert copies.resolve(checkout, "mine") == commit
    assert copies.experiments_on(checkout, copy.commit) == [commit]
    assert yaml.safe_load(copies.file_at(checkout, commit, "params.yaml"))["seed"] == 4
    assert run(checkout, "git", "status", "--porcelain") == ""
    with pytest.raises(UserError, match="missing-files"):  # of the stages that were not run; the rest is there
        copies.dvc(checkout, "exp", "apply", "mine")
    assert (checkout / "data/words.txt").read_text() == "words of seed 4"
    with pytest.raises(UserError, match="nothing.txt: not in revision"):
        copies.file_at(checkout, commit, "nothing.txt")


def test_a_run_is_held_once_and_leftovers_go(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = make(checkout)
    with copies.held(copy.root, {"name": "flow run one"}):
        for folder in (copy.folder, copy.state):
            folder.mkdir(parents=True)
        with (
            pytest.raises(
                UserError, match=rf"runs with these parameters already \(flow run one, process {os.getpid()}\)"
            ),
            copies.held(copy.root, {}),
        ):
            pass
        copies.prune()
        assert copy.folder.exists(), "what is held stays"
    copies.prune()
    assert not copy.folder.exists() and copy.state.exists(), "a killed run's copy goes, its checkpoints stay"
    monkeypatch.setattr(copies, "KEPT_STATES", 0)
    copies.prune()
    assert not copy.root.exists()


def test_flows_have_settings_of_their_own_before_prefect_reads_them(checkout: Path) -> None:
    ask = "import pipelines.flows, prefect; s = prefect.settings.get_current_settings(); "
    ask += "print(s.home, s.server.analytics_enabled)"
    env = environment(checkout)
    done = subprocess.run(
        [sys.executable, "-c", ask], cwd=checkout, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(checkout / ".muomni/workplace/prefect"), "False"]


def test_a_lock_tells_who_holds_it_also_to_the_holder_itself(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert locks.holder(path) is None
    with locks.held(path, {"name": "x"}):
        assert locks.holder(path) == {"pid": os.getpid(), "name": "x"}
        assert locks.holder(path) is not None, "looking does not let it go"
    assert locks.holder(path) is None
