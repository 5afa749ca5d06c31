"""What a dvc that was killed leaves behind stops none of the commands that come after it. The dvc is the real one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fake_project import commit_all, make_project

from pipelines import copies
from pipelines.dvc_lock import ASIDE, NAME, is_whole, mend, release
from pipelines.follow import Began, Graph

GRAPH = """\
stages:
  one:
    cmd: cat in > out && sleep ${seconds} && echo x >> runs
    deps: [in]
    params: [seconds]
    outs: [out]
  two:
    cmd: cat out in > both
    deps: [in, out]
    outs: [both]
"""


def dvc(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run dvc."""
    command = [sys.executable, "-m", "dvc", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project whose graph has run once."""
    folder = tmp_path_factory.mktemp("project")
    assert dvc(folder, "init", "--no-scm").returncode == 0
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "params.yaml").write_text("seconds: 0\n")
    (folder / "in").write_text("in\n")
    done = dvc(folder, "repro")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def killed(finished: Path) -> Iterator[Path]:
    """The project after a kill -9 of a dvc that nobody has waited for yet, in the middle of a stage."""
    (finished / "params.yaml").write_text("seconds: 60\n")
    (finished / "out").unlink(missing_ok=True)
    process = subprocess.Popen([sys.executable, "-m", "dvc", "repro"], cwd=finished, start_new_session=True)
    try:
        end = time.monotonic() + 60
        while not (finished / "out").exists():
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.05)
        assert not release(finished), "it lives"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and stays in the table of processes
        (finished / "params.yaml").write_text("seconds: 0\n")
        yield finished
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def works(folder: Path) -> None:
    """The graph runs, and what comes of it is right."""
    done = dvc(folder, "repro")
    assert done.returncode == 0, done.stderr
    text = (folder / "in").read_text()
    assert (folder / "out").read_text() == text and (folder / "both").read_text() == 2 * text


def test_a_dvc_that_was_killed_and_not_waited_for_blocks_nobody(killed: Path) -> None:
    """In a container whose first process waits for nobody, dvc says "busy" for as long as the container lives."""
    done = dvc(killed, "repro")
    assert done.returncode and "busy" in done.stderr, "dvc does that itself now: take it out of pipelines.dvc_lock"
    assert release(killed)
    works(killed)


@pytest.mark.parametrize(
    ("command", "seconds_ago"), [("/a place/dvc/__main__.py repro one", 0), ("train.py --fast", 100)]
)
def test_another_program_that_has_the_id_of_a_killed_dvc_blocks_nobody(
    finished: Path, command: str, seconds_ago: int
) -> None:
    path = finished / ".dvc/tmp/rwlock"
    other = subprocess.Popen(["sleep", "60"])
    try:
        entry = {"pid": other.pid, "cmd": command}
        path.write_text(json.dumps({"write": {str(finished / "out"): entry}, "read": {}}))
        if seconds_ago:
            assert not release(finished), "it may be the one that is noted"
            os.utime(path, (time.time() - seconds_ago,) * 2)
        (finished / "out").unlink(missing_ok=True)
        assert dvc(finished, "repro").returncode
        assert release(finished) and json.loads(path.read_text()) == {"read": {}, "write": {}}
    finally:
        other.kill()
        other.wait()
    works(finished)


@pytest.mark.parametrize("left", [b"", b'{"write": {"/a', b"[]", b"\xff"])
def test_notes_of_who_works_that_were_cut_off_are_removed(finished: Path, left: bytes) -> None:
    path = finished / ".dvc/tmp/rwlock"
    path.write_bytes(left)
    if left == b"":  # the others fail likewise
        assert dvc(finished, "repro").returncode
    mend(finished)
    assert not path.exists()
    works(finished)


def test_wherever_a_lock_file_was_cut_off_the_results_are_right_and_nothing_runs_again(finished: Path) -> None:
    """dvc itself takes half a hash, and then fails ("hash: m") or runs the stage again (an output's)."""
    path, seed = finished / NAME, random.randrange(2**32)
    print(f"seed {seed}")
    works(finished)
    whole, ran = path.read_bytes(), (finished / "runs").read_bytes()
    taken = set()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        if is_whole(path):
            taken.add(cut)
    ends = {place + 1 for place, byte in enumerate(whole) if byte == ord("\n")}
    assert taken <= ends and 4 <= len(taken) < len(ends)
    half_a_hash = whole.index(b"md5: ", whole.index(b"outs:")) + 20
    for cut in (half_a_hash, *random.Random(seed).sample(sorted(taken), 3)):
        path.write_bytes(whole[:cut])
        (finished / ASIDE).unlink(missing_ok=True)
        mend(finished)
        assert path.exists() == (cut in taken)
        works(finished)
        assert (finished / "runs").read_bytes() == ran, f"cut at {cut}"
        assert yaml.safe_load(path.read_bytes())["stages"].keys() == {"one", "two"} and is_whole(path)
    damaged = whole.replace(b"md5", b"md\xff", 1)
    path.write_bytes(damaged)
    mend(finished)
    assert (finished / ASIDE).read_bytes() == damaged
    works(finished)


def test_a_run_in_a_copy_does_not_mind_a_lock_file_that_was_committed_as_it_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUOMNI_STATE", str(tmp_path / ".muomni"))
    (tmp_path / NAME).write_text("schema: '2.0'\nstages:\n  words:\n    cm")
    commit_all(tmp_path)
    copy = copies.Copy(tmp_path, copies.resolve(tmp_path, "HEAD"), copies.runs_root() / "k", "k")
    copies.lay_out(copy, (tmp_path / "params.yaml").read_text())
    graph = Graph(copy.folder, ["words"], copy.env())
    lines = list(graph.before())
    assert graph.turn() == Began("words", False), lines
    list(graph.during())
    assert graph.end() == 0
    assert "words of seed" in (copy.folder / "data/words.txt").read_text()
    commit = copies.save_experiment(copy, "mine", ["words"], "a try")
    assert "words" in copies.file_at(tmp_path, commit, NAME)
