"""Training under torchrun, by gloo on the CPU: the curve of one process, several nodes, killed processes, errors."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_tasks import make_data

from muomni.omni import Omni
from muomni.tokenizer import Tokenizer
from muomni.train.report import read_metrics

ROOT = Path(__file__).parents[1]
STEPS = 30
# Sums of floats in another order differ by 1e-7 of the loss, which every further step makes larger.
FIRST, ALL = 1e-4, 2e-3  # largest relative difference of the loss in the first five steps, and in all


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, small: tuple[Omni, Tokenizer]) -> Path:
    folder = make_data(tmp_path_factory.mktemp("data"))
    small[1].save(folder / "tokenizer.model")
    return folder


def settings(data: Path, folder: Path, stage: str = "a", accumulate: int = 1, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    loop = {"steps": STEPS, "batch_size": 2, "accumulate": accumulate, "eval_every": 15, "save_every": 10}
    given = {"stage": stage, "data": str(data), "tokenizer": str(data / "tokenizer.model"), "folder": str(folder)}
    path = folder / "settings.json"
    path.write_text(json.dumps({**given, "loop": {**loop, "lr": 0.003, "muon_lr": 0.02}, **more}))
    return path


def start(path: Path, processes: int, *options: str) -> subprocess.Popen[str]:
    """One process without torchrun, or several by it."""
    paths = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests/torchrun_stage.py"), str(path)]
    if processes:
        where = options if "--nnodes" in options else ("--standalone", *options)
        begin = f"from pipelines.launch import launch; import sys; sys.exit(launch({[*where]!r} + sys.argv[1:]))"
        command = [sys.executable, "-c", begin, "--nproc-per-node", str(processes), *command[1:]]
    return subprocess.Popen(command, env=env, cwd=path.parent, stderr=subprocess.PIPE, text=True)


def run(path: Path, processes: int, *options: str) -> tuple[int, str]:
    with start(path, processes, *options) as process:
        _, told = process.communicate(timeout=150)
    return process.returncode, told


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder / "state/metrics.jsonl") if "loss" in line]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "weights.pt", weights_only=True)


@pytest.mark.parametrize(
    ("stage", "counts", "more"), [("a", (2, 4), {}), ("b", (2, 4), {}), ("b", (2,), {"stream_over_mb": 0.0})]
)
def test_several_processes_have_the_curve_of_one(
    data: Path, tmp_path: Path, stage: str, counts: tuple[int, ...], more: dict[str, float]
) -> None:
    curves = {}
    for processes in (1, *counts):
        folder = tmp_path / str(processes)
        path = settings(data, folder, stage, 4 // processes, **more)
        code, told = run(path, 0 if processes == 1 else processes)
        assert code == 0, told
        curves[processes] = losses(folder)
        assert len(curves[processes]) == STEPS
    assert curves[1][-1] < 0.9 * curves[1][0], "it learns"
    for processes in counts:
        apart = [abs(a - b) / abs(b) for a, b in zip(curves[processes], curves[1], strict=True)]
        print(f"stage {stage} {more}, {processes} processes: {max(apart[:5]):.2e} in 5 steps, {max(apart):.2e} in all")
        assert max(apart[:5]) < FIRST and max(apart) < ALL


def test_a_killed_process_restarts_all_from_the_state_and_ends_with_the_same_bits(data: Path, tmp_path: Path) -> None:
    code, told = run(settings(data, tmp_path / "whole"), 2)
    assert code == 0, told
    for rank in (0, 1):
        folder = tmp_path / f"killed-{rank}"
        code, told = run(settings(data, folder, die=[rank, 17]), 2, "--max-restarts", "1")
        assert code == 0 and "going on after step 10" in told, told
        assert losses(folder) == losses(tmp_path / "whole")
        expected = weights(tmp_path / "whole")
        assert all(torch.equal(value, expected[name]) for name, value in weights(folder).items())


def test_two_nodes_find_each_other_and_do_what_one_does(data: Path, tmp_path: Path) -> None:
    code, told = run(settings(data, tmp_path / "one"), 2)
    assert code == 0, told
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    path = settings(data, tmp_path / "two", die=[1, 12])
    options = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "x"]
    options += ["--local-addr", "127.0.0.1", "--max-restarts", "1"]
    nodes = [start(path, 1, *options) for _ in range(2)]
    told = [node.communicate(timeout=150)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], told
    assert "going on after step 10" in "".join(told)
    expected = weights(tmp_path / "one")
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "two").items())


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ({"full": [0, 3]}, "error: state.safetensors: No space left on device; free some space"),
        ({"bad": [1, 3]}, "error: something that only process 1 met; mend it"),
        ({"die": [1, 3]}, "error: process 1 was killed by SIGKILL; the same command goes on"),
    ],
)
def test_an_error_at_one_process_ends_all_with_one_line(
    data: Path, tmp_path: Path, fault: dict[str, Any], line: str
) -> None:
    code, told = run(settings(data, tmp_path / "x", **fault), 2)
    errors = [found for found in told.splitlines() if not found.startswith("small")]
    assert code == (1 if "die" in fault else 2) and len(errors) == 1 and errors[0].startswith(line), told


def test_another_number_of_processes_does_not_go_on_from_a_state(data: Path, tmp_path: Path) -> None:
    path = settings(data, tmp_path / "x", die=[0, 17])
    assert run(path, 0)[0] == -9
    code, told = run(path, 2)
    assert code == 2 and "1 process(es) trained up to step 10, and now there are 2" in told, told
    assert told.count("error:") == 1 and "Traceback" not in told, told
