"""What surrounds a run is not as expected: no home, a clock that jumps, no locale, a checkpoint that is replaced."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from muomni.checkpoint import load_checkpoint, save_checkpoint
from muomni.errors import UserError
from muomni.train.report import MetricsFile, Progress, read_metrics

ROOT = Path(__file__).resolve().parents[1]


def command(*words: str, env: dict[str, str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the command as a program, with an environment of its own."""
    return subprocess.run(
        [sys.executable, "-m", "muomni.cli", *words], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("home", [None, "/nowhere/at/all"], ids=["unset", "missing"])
def test_the_command_needs_no_home(home: str | None, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TMPDIR": str(tmp_path)} | ({"HOME": home} if home else {})
    done = command("params", "--profile", "smoke", env=env)
    assert done.returncode == 0 and "Thinker" in done.stdout, done.stderr


def test_text_beyond_ascii_is_read_and_printed_without_a_locale(tmp_path: Path) -> None:
    (tmp_path / "caf\u00e9.yaml").write_text("th\u00efnker: {}\n", encoding="utf-8")
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    done = command("params", "--params", "caf\u00e9.yaml", env=env, cwd=tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "unknown section" in done.stderr


def test_a_clock_that_jumps_back_keeps_metrics_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1_800_000_000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    progress, metrics = Progress("a", 0, 3), MetricsFile(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        metrics.write(step, {"loss": 1 / step})
        progress.update(step, {"loss": 1 / step})
        now[0] -= 86_400
    metrics.close()
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert "-" not in capsys.readouterr().err.partition("loss")[2]  # no negative time is left


def test_who_reads_a_checkpoint_while_it_is_replaced_gets_one_of_both(checkpoint: Path, tmp_path: Path) -> None:
    """Never the weights of one with the card of the other, and never half of one."""
    old = load_checkpoint(checkpoint)
    target, done = tmp_path / "omni", threading.Event()
    files = {"tokenizer.model": checkpoint / "tokenizer.model"}
    marks = [
        {**old.state, "thinker.stack.blocks.0.norm1.weight": old.state["thinker.stack.blocks.0.norm1.weight"] * 0 + n}
        for n in (1.0, 2.0)
    ]
    runs = [{**old.card, "run": f"run-{n}"} for n in (1, 2)]
    save_checkpoint(target, marks[0], old.config, runs[0], files)

    failures: list[Exception] = []

    def replace() -> None:
        try:
            for number in range(20):
                save_checkpoint(target, marks[number % 2], old.config, runs[number % 2], files)
        except Exception as error:
            failures.append(error)
        done.set()

    writer = threading.Thread(target=replace)
    writer.start()
    read = refused = 0
    while not done.is_set():
        try:
            found = load_checkpoint(target)
        except UserError:  # between two renames, or its files changed meanwhile
            refused += 1
            continue
        read += 1
        assert found.card["run"] == f"run-{found.state['thinker.stack.blocks.0.norm1.weight'][0]:.0f}"
    writer.join()
    assert read > 0 and not failures, failures
    assert load_checkpoint(target).card["run"] in ("run-1", "run-2")
