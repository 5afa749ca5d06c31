"""Runs started as Prefect's page starts them: real server, worker, dvc, MLflow; a small project stands in for ours.

One workplace serves all tests, in their order; each test is about one promise.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from fake_project import run
from workplace import Place, free_port, quietly, wait

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the workplace ends its processes by Linux's means")


def test_a_second_workplace_and_a_taken_port_are_refused(place: Place, tmp_path: Path) -> None:
    again = place.muomni("up", "--port", str(free_port()), "--mlflow-port", str(free_port()))
    assert again.returncode == 2 and "up already" in again.stderr
    env = place.env | {"MUOMNI_STATE": str(tmp_path)}
    command = [sys.executable, "-m", "muomni.cli", "up", "--port", str(place.port)]
    taken = subprocess.run(command, cwd=place.folder, env=env, capture_output=True, text=True, check=False)
    assert taken.returncode == 2 and f"{place.port}: no place for the Prefect server" in taken.stderr


def test_pages_of_others_may_ask_nothing(place: Place) -> None:
    """On loopback nobody is asked for a token, but a page that a person has open is no person."""
    mlflow = f"http://127.0.0.1:{place.mlflow_port}"
    create = f"{mlflow}/api/2.0/mlflow/experiments/create"
    # 10.evil.example is a name that MLflow's own list takes for one of the network 10.
    for host in ("evil.example", f"10.evil.example:{place.mlflow_port}"):
        for page in (f"{place.api}/admin/version", f"{mlflow}/"):
            assert httpx.get(page, headers={"Host": host}).status_code == 403, (page, host)
    evil = {"Origin": "http://evil.example"}
    assert httpx.post(f"{place.api}/flow_runs/filter", json={}, headers=evil).status_code == 403
    assert httpx.post(create, json={"name": "theirs"}, headers=evil).status_code == 403
    for name in ("localhost", "127.0.0.1"):
        tunnel = {"Host": f"{name}:9999", "Origin": f"http://{name}:9999"}
        assert httpx.post(f"{place.api}/flow_runs/filter", json={}, headers=tunnel).status_code == 200
        assert httpx.post(create, json={"name": name}, headers=tunnel).status_code == 200


def test_the_form_offers_choices_and_refuses_wrong_values_before_anything_starts(place: Place) -> None:
    form = place.get("deployments/name/train/train")["parameter_openapi_schema"]
    assert form["properties"]["profile"]["enum"] == ["params.yaml", "smoke"]
    assert form["properties"]["until"]["enum"] == ["words", "a-slow", "evaluate"]
    assert "not committed" in form["properties"]["revision"]["description"]
    steps = form["definitions"]["ThinkerStageConfig"]["properties"]["steps"]
    assert steps["minimum"] == 1 and steps["description"] == "optimiser steps"
    for parameters, reason in (
        ({"profile": "huge"}, "is not one of"),
        ({"until": "nothing"}, "is not one of"),
        ({"changes": {"a_thinker": {"steps": 0}}}, "less than the minimum of 1"),
        ({"changes": {"a_thinker": {"stepz": 1}}}, "stepz"),
        ({"name": "../x"}, "does not match"),
    ):
        answer = place.trigger(**parameters)
        assert answer.status_code == 409 and reason in answer.text, answer.text


def test_a_run_works_in_a_copy_and_its_result_comes_home(place: Place) -> None:
    (place.folder / "params.yaml").write_text("seed: [broken")  # a person is at work in the checkout
    before = run(place.folder, "git", "status", "--porcelain")
    first = place.start(name="first", changes={"seed": 5})
    assert place.ended(first) == "COMPLETED", place.logs(first)
    said = place.logs(first)
    assert "not part of this run, since not committed: params.yaml" in said and "valid_loss" in said
    assert run(place.folder, "git", "status", "--porcelain") == before
    assert not (place.folder / "data/words.txt").exists() and not place.leftovers()
    assert not list((place.folder / ".muomni/runs").glob("*/state")), "nothing to resume after success"
    tasks = place.tasks(first)
    assert [task["name"] for task in tasks] == ["words", "a-slow", "evaluate"]
    found = place.artifacts(first)
    assert found["progress-a-slow"] == 100.0

    run(place.folder, "git", "checkout", "--quiet", "params.yaml")
    shown = json.loads(run(place.folder, sys.executable, "-m", "dvc", "exp", "show", "--json"))
    names = [exp["name"] for revision in shown for exp in revision.get("experiments") or []]
    assert names == ["first"]
    run(place.folder, sys.executable, "-m", "dvc", "exp", "apply", "first")
    assert (place.folder / "data/words.txt").read_text() == "words of seed 5"
    assert "seed: 5" in (place.folder / "params.yaml").read_text()
    run(place.folder, "git", "checkout", "--quiet", "params.yaml")
    (place.folder / "dvc.lock").unlink(missing_ok=True)
    assert "accuracy" in found["report-first"] and "data:image/png" in found["report-first"]


def test_stages_from_the_cache_are_shown_as_such(place: Place) -> None:
    second = place.start(name="second", changes={"seed": 5})
    assert place.ended(second) == "COMPLETED", place.logs(second)
    tasks = place.tasks(second)
    assert sorted(task["name"] for task in tasks) == ["a-slow (cached)", "evaluate (cached)", "words (cached)"]
    assert {task["state"]["name"] for task in tasks} == {"Cached"}
    taken = place.start(name="second", changes={"seed": 5})
    assert place.ended(taken) == "FAILED" and "there is an experiment of this name" in place.reason(taken)
    unknown = place.start(revision="no-such-branch")
    assert place.ended(unknown) == "FAILED" and "no such commit, tag, branch or experiment" in place.reason(unknown)


def test_cancelling_ends_everything_and_the_same_run_goes_on(place: Place) -> None:
    cancelled = place.training(seed=6)
    begin = time.monotonic()
    state = {"type": "CANCELLING", "name": "Cancelling"}
    httpx.post(f"{place.api}/flow_runs/{cancelled}/set_state", json={"state": state}).raise_for_status()
    wait(lambda: not place.processes(), 20, place.processes)
    print(f"no process left after {time.monotonic() - begin:.1f} s")
    assert place.ended(cancelled, 30) == "CANCELLED"
    assert not place.leftovers() and not list((place.folder / ".muomni/flows").iterdir())
    wait(lambda: "RUNNING" not in [status for _, status in place.mlflow()], 20, place.mlflow)
    again = place.training(seed=6)
    wait(lambda: "going on after step" in place.logs(again), 20, lambda: place.logs(again))
    httpx.post(f"{place.api}/flow_runs/{again}/set_state", json={"state": state}).raise_for_status()
    assert place.ended(again, 30) == "CANCELLED"


@pytest.mark.parametrize("victim", ["prefect worker start", "prefect.engine", "dvc repro", "fake.slow"])
def test_kill_9_leaves_no_process_and_no_run_that_seems_to_go_on(place: Place, victim: str) -> None:
    seed = 10 + len(victim)
    killed = place.training(seed=seed)
    place.named(victim).send_signal(signal.SIGKILL)
    assert place.ended(killed, 30) in ("CRASHED", "FAILED")
    wait(lambda: not place.processes(), 20, place.processes)
    wait(lambda: not list((place.folder / ".muomni/flows").iterdir()), 20)
    wait(lambda: "RUNNING" not in [status for _, status in place.mlflow()], 40, place.mlflow)
    wait(lambda: not place.leftovers(), 20, place.leftovers)


def test_after_a_restart_of_the_machine_runs_have_crashed_and_go_on_when_started_again(place: Place) -> None:
    lost = place.training(seed=7)
    everything = [p for p in psutil.process_iter() if place.mine(p)]
    for process in everything:
        quietly(process.kill)
    psutil.wait_procs(everything, timeout=20)
    place.up()
    assert place.ended(lost, 30) == "CRASHED"
    wait(lambda: "RUNNING" not in [status for _, status in place.mlflow()], 40, place.mlflow)
    again = place.training(seed=7)
    wait(lambda: "going on after step" in place.logs(again), 20, lambda: place.logs(again))
    state = {"type": "CANCELLING", "name": "Cancelling"}
    httpx.post(f"{place.api}/flow_runs/{again}/set_state", json={"state": state}).raise_for_status()
    assert place.ended(again, 30) == "CANCELLED"


def test_the_same_run_twice_at_once_is_refused(place: Place) -> None:
    first = place.training(seed=8)
    env = place.env | {"PREFECT_API_URL": place.api}
    command = [sys.executable, "-m", "pipelines.flows", "train", "--set", "seed=8", "--set", "a_thinker.steps=4000"]
    done = subprocess.run(command, cwd=place.folder, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and "runs with these parameters already (flow run" in done.stderr, done.stderr
    state = {"type": "CANCELLING", "name": "Cancelling"}
    httpx.post(f"{place.api}/flow_runs/{first}/set_state", json={"state": state}).raise_for_status()
    assert place.ended(first, 30) == "CANCELLED"


def test_a_sweep_queues_its_runs_one_after_another(place: Place) -> None:
    bad = place.start("sweep", axes=[{"key": "a_thinker.lr", "values": ["0.1", "7"]}])
    assert place.ended(bad) == "FAILED" and "a_thinker.lr" in place.reason(bad)
    axes = [{"key": "a_thinker.lr", "values": ["0.1", "0.2"]}, {"key": "a_thinker.checkpointing", "values": ["true"]}]
    sweep = place.start("sweep", name="rates", axes=axes, changes={"e_omni": {"freeze_audio": "true"}})
    assert place.ended(sweep) == "COMPLETED", place.logs(sweep)
    wanted = {"flow_runs": {"name": {"any_": ["rates-1", "rates-2"]}}}
    runs = httpx.post(f"{place.api}/flow_runs/filter", json=wanted).json()
    assert len(runs) == 2
    for one in runs:
        assert place.ended(one["id"]) == "COMPLETED", place.logs(one["id"])
    times = sorted(
        (one["start_time"], one["end_time"]) for one in httpx.post(f"{place.api}/flow_runs/filter", json=wanted).json()
    )
    assert times[0][1] <= times[1][0], "one at a time"


def test_nothing_is_measured_that_was_not_trained(place: Place) -> None:
    assert place.ended(place.start("evaluate", revision="first", name="measured")) == "COMPLETED"
    never = place.start("evaluate", name="never")
    assert place.ended(never) == "FAILED"
    assert "stage a-slow was not run at this revision with these parameters" in place.reason(never)


def test_down_ends_everything(place: Place) -> None:
    flow_run = place.training(seed=9)
    assert flow_run
    done = place.muomni("down")
    assert done.returncode == 0 and "ended the workplace" in done.stderr, done.stderr
    wait(lambda: not [p for p in psutil.process_iter() if place.mine(p) and p.pid != os.getpid()], 20)
    assert "not up" in place.muomni("down").stderr
    with sqlite3.connect(place.folder / ".muomni/workplace/prefect/prefect.db") as base:
        assert not list(base.execute("select id from flow_run where state_type in ('RUNNING', 'CANCELLING')"))
