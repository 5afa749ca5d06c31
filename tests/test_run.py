"""Stage entry points: one at a time, one-line errors, records, atomic folders, and an end with dvc."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.run import new_dir, record, stage, state_dir
from pipelines.times import read_times, table

ROOT = Path(__file__).resolve().parents[1]


def program(body: str) -> list[str]:
    """Command of a small stage named demo with this body."""
    return [
        sys.executable,
        "-c",
        "import os, time\nfrom pathlib import Path\nfrom muomni.errors import UserError\n"
        f"from pipelines.run import main\ndef run():\n    {body}\nmain('demo', run)\n",
    ]


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Environment of a stage whose state lies in a temporary folder."""
    monkeypatch.setenv("MUOMNI_STATE", str(tmp_path))
    monkeypatch.delenv("DVC_STAGE", raising=False)
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def wait_for(path: Path, seconds: float = 20.0) -> None:
    """Wait until a file exists and is not empty."""
    end = time.monotonic() + seconds
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie that nobody has waited for does not count)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_user_error_is_one_line_and_code_2(env: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(program("raise UserError('x.wav: empty')"), env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout) == (2, "error: x.wav: empty\n", "")
    assert not (tmp_path / "times").exists(), "a failed run must leave no time"


def test_a_bug_keeps_its_traceback(env: dict[str, str]) -> None:
    done = subprocess.run(program("raise ValueError('bug')"), env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_time_and_memory_are_recorded(env: dict[str, str], tmp_path: Path) -> None:
    body = "x = bytearray(b'1') * 300_000_000; time.sleep(0.3)"
    subprocess.run(program(body), env=env, check=True)
    found = json.loads((tmp_path / "times/demo.json").read_text())
    assert found["stage"] == "demo"
    assert 0.3 <= found["seconds"] < 20
    assert 300 <= found["peak_mb"] < 600


def test_the_memory_of_children_counts_but_not_twice_what_their_parent_holds(
    env: dict[str, str], tmp_path: Path
) -> None:
    child = "[sys.executable, '-c', 'import time; x = bytearray(200_000_000); x[:] = bytes(len(x)); time.sleep(2)']"
    body = f"import subprocess, sys; x = bytearray(b'1') * 300_000_000; subprocess.run({child}); subprocess.run('true')"
    subprocess.run(program(body), env=env, check=True)
    found = json.loads((tmp_path / "times/demo.json").read_text())
    assert 500 <= found["peak_mb"] < 800


def test_a_second_process_is_refused(env: dict[str, str], tmp_path: Path) -> None:
    first = subprocess.Popen(program("Path(os.environ['MUOMNI_STATE'], 'go').write_text('1'); time.sleep(60)"), env=env)
    try:
        wait_for(tmp_path / "go")
        second = subprocess.run(program("pass"), env=env, capture_output=True, text=True)
        assert second.returncode == 2
        assert "'demo' is running already" in second.stderr and str(first.pid) in second.stderr
    finally:
        first.kill()
        first.wait()
    assert subprocess.run(program("pass"), env=env).returncode == 0, "a killed process must not keep the lock"


def test_the_lock_dies_with_the_trainer_though_a_forked_worker_lives(env: dict[str, str], tmp_path: Path) -> None:
    body = (
        "pid = os.fork()\n    if pid == 0: time.sleep(60); os._exit(0)\n"
        "    Path(os.environ['MUOMNI_STATE'], 'go').write_text(str(pid)); time.sleep(60)"
    )
    first = subprocess.Popen(program(body), env=env)
    worker = None
    try:
        wait_for(tmp_path / "go")
        worker = int((tmp_path / "go").read_text())
        first.kill()
        first.wait()
        assert is_alive(worker)
        assert subprocess.run(program("pass"), env=env).returncode == 0
    finally:
        first.kill()
        if worker is not None:
            os.kill(worker, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="relies on Linux's process table")
@pytest.mark.parametrize("shell", ["direct", "exec", "between"])
@pytest.mark.parametrize("under_dvc", [True, False])
def test_ends_with_its_parent_under_dvc_only(env: dict[str, str], tmp_path: Path, under_dvc: bool, shell: str) -> None:
    command = program("Path(os.environ['MUOMNI_STATE'], 'go').write_text(str(os.getpid())); time.sleep(60)")
    if shell != "direct":
        command = ["sh", "-c", f"{'exec ' * (shell == 'exec')}{shlex.join(command)}; exit $?"]
    if under_dvc:
        env = {**env, "DVC_STAGE": "demo"}
    parent = subprocess.Popen([sys.executable, "-c", f"import subprocess\nsubprocess.run({command!r})"], env=env)
    pid = None
    try:
        wait_for(tmp_path / "go")
        pid = int((tmp_path / "go").read_text())
        parent.kill()
        parent.wait()
        end = time.monotonic() + (10 if under_dvc else 0.3)
        while is_alive(pid) and time.monotonic() < end:
            time.sleep(0.02)
        assert is_alive(pid) is not under_dvc
    finally:
        parent.kill()
        if pid is not None and is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def test_new_dir_replaces_at_the_end_only(tmp_path: Path) -> None:
    final = tmp_path / "data" / "tokens"
    final.mkdir(parents=True)
    (final / "old").write_text("old")
    with new_dir(final) as made:
        (made / "new").write_text("new")
        assert [path.name for path in final.iterdir()] == ["old"]
    assert [path.name for path in final.iterdir()] == ["new"]
    assert [path.name for path in final.parent.iterdir()] == ["tokens"]


def test_new_dir_leaves_things_alone_on_an_error(tmp_path: Path) -> None:
    final = tmp_path / "tokens"
    (tmp_path / ".tokens.partial").mkdir()
    (tmp_path / ".tokens.partial" / "junk").write_text("of a killed run")
    with pytest.raises(RuntimeError), new_dir(final) as made:
        assert list(made.iterdir()) == []
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_state_dir_is_absolute_wherever_state_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUOMNI_STATE", raising=False)
    assert state_dir("e-omni") == tmp_path / ".muomni" / "state" / "e-omni"
    monkeypatch.setenv("MUOMNI_STATE", "elsewhere")
    assert state_dir("e-omni") == tmp_path / "elsewhere" / "state" / "e-omni"
    assert state_dir("e-omni").is_dir()


def test_other_ranks_neither_lock_nor_record(env: dict[str, str], tmp_path: Path) -> None:
    os.environ["RANK"] = "1"
    try:
        with stage("demo"):
            pass
    finally:
        del os.environ["RANK"]
    assert list(tmp_path.iterdir()) == []


def test_table_marks_what_did_not_run_and_totals_the_rest(env: dict[str, str], tmp_path: Path) -> None:
    times = tmp_path / "times"
    record("tokens", 3.0, 10**9)
    record("a-thinker", 61.0, 2 * 10**9)
    old = json.loads((times / "tokens.json").read_text())
    (times / "tokens.json").write_text(json.dumps({**old, "finished": "2026-01-01T00:00:00+00:00"}))
    (times / "broken.json").write_text("{")
    records = read_times(times)
    assert [found["stage"] for found in records] == ["tokens", "a-thinker"]
    lines = table(records, since=time.time() - 60).splitlines()
    assert "not run" in lines[1] and "not run" not in lines[2]
    assert lines[-1].endswith("1 stages in 1 min 1 s")
    assert table(records).splitlines()[-1].endswith("2 stages in 1 min 4 s")
