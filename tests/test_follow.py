"""What dvc prints, read as events; and commands that end with the process that started them."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from muomni.train.report import Progress as Bar
from pipelines import follow
from pipelines.follow import Began, Graph, Progress


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("Running stage 'a-thinker':", Began("a-thinker", False)),
        ("Stage 'tokens' is cached - skipping run, checking out outputs", Began("tokens", True)),
        ("Stage 'tokens' didn't change, skipping", Began("tokens", True)),
        ("> python -m pipelines.tokens", "> python -m pipelines.tokens"),
        ("ERROR: failed to reproduce 'tokens'", "ERROR: failed to reproduce 'tokens'"),
    ],
)
def test_lines_of_dvc_are_events(line: str, event: follow.Event) -> None:
    assert follow.read(line) == event


def test_progress_is_what_the_training_prints(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar("a-thinker", 0, 40)
    bar.update(40, {"loss": 1.25})
    bar.note("step 40: valid_loss 2")
    progress, note = capsys.readouterr().err.splitlines()
    event = follow.read(progress)
    assert isinstance(event, Progress) and (event.step, event.steps) == (40, 40) and "loss 1.25" in event.text
    assert follow.read(note) == "a-thinker: step 40: valid_loss 2"


def events_of(*lines: str) -> Graph:
    """A graph that has said some lines."""
    graph = Graph.__new__(Graph)
    graph.next, graph.events = None, iter([follow.read(line) for line in lines])
    return graph


def test_a_stage_has_the_lines_up_to_the_next() -> None:
    graph = events_of("checking", "Running stage 'a':", "> a", "made", "Stage 'b' didn't change, skipping", "bye")
    assert list(graph.before()) == ["checking"]
    assert graph.turn() == Began("a", False) and list(graph.during()) == ["> a", "made"]
    assert graph.turn() == Began("b", True) and list(graph.during()) == ["bye"]
    assert graph.turn() is None


STARTER = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-m", "pipelines.attached", str(os.getpid()), "sleep", "60"])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_an_attached_command_ends_with_its_starter() -> None:
    with subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        child = psutil.Process(int(starter.stdout.readline()))
        while child.name() != "sleep":
            time.sleep(0.02)
        starter.send_signal(signal.SIGKILL)
    child.wait(5)
    late = [sys.executable, "-m", "pipelines.attached", str(os.getpid() + 1), "echo", "ran"]
    done = subprocess.run(late, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and not done.stdout, "its starter was gone before it began"
