"""Executors of this machine: order, bounds, what kills a worker, and an end that leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import executor_work as work
import psutil
import pytest

from muomni.data.processes import AHEAD, LocalExecutor, executor, in_processes, map_lists
from muomni.errors import UserError

ROOT = Path(__file__).parents[1]
LISTS = [[n, n + 1] for n in range(0, 12, 2)]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_are_in_order_and_the_same_for_any_number(workers: int) -> None:
    with LocalExecutor(workers) as pool:
        assert list(pool.map(work.squared, range(30), 3)) == [n * n + 3 for n in range(30)]
        assert list(in_processes(work.squared, range(3), workers, 1)) == [1, 2, 5]
        assert list(pool.map(work.squared, [])) == [] and list(pool.map(work.squared, [5])) == [25]
        with pytest.raises(UserError, match="number 1 is not wanted"):
            list(pool.map(work.refused, [1, 2, 3]))


def test_no_more_is_worked_on_than_is_asked_for(tmp_path: Path) -> None:
    with LocalExecutor(2) as pool:
        results = pool.map(work.slow, range(100), str(tmp_path))
        assert next(results) == 0
        time.sleep(1.5)
        assert len(list(tmp_path.iterdir())) <= 2 * AHEAD
        assert [next(results) for _ in range(5)] == [1, 4, 9, 16, 25]


def test_what_kills_its_worker_is_given_up_and_the_others_are_not() -> None:
    with LocalExecutor(2) as pool:
        with pytest.raises(UserError, match=r"^\[6, 7\]: it killed its worker 3 times") as error:
            list(pool.map(work.deadly, LISTS, 7))
        assert "\n" not in str(error.value)
        made = list(map_lists(pool, work.deadly, LISTS, 7))
    assert isinstance(made[3][1], str) and "3 times" in made[3][1]
    made[3][1] = 49
    assert made == [[n * n for n in numbers] for numbers in LISTS]


def test_ctrl_c_ends_every_process() -> None:
    # What was started in a script's background ignores SIGINT, and so do its children.
    code = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from muomni.data.processes import executor\nimport executor_work\n"
    code += "with executor(2) as pool:\n    list(pool.map(executor_work.for_ever, range(9)))\n"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    env.pop("MUOMNI_DASK", None)
    # main's module is imported again by spawned workers: a file would be, a command is not.
    with subprocess.Popen(
        [sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, start_new_session=True
    ) as child:
        until = time.monotonic() + 60
        while len(workers := psutil.Process(child.pid).children(recursive=True)) < 3 and time.monotonic() < until:
            time.sleep(0.1)  # two workers, and multiprocessing's tracker of resources
        time.sleep(1)
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does, to all of them
        _, told = child.communicate(timeout=30)
    assert child.returncode != 0 and told.count(b"Traceback") == 1, told.decode()
    assert not psutil.wait_procs(workers, 10)[1]


def test_without_an_address_it_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUOMNI_DASK", raising=False)
    assert isinstance(executor(2), LocalExecutor)
    monkeypatch.setenv("MUOMNI_DASK", " ")
    assert isinstance(executor(2), LocalExecutor)
