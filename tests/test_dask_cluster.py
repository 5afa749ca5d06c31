"""The executor on a real Dask cluster: order, what kills its workers, and whatever else can go."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import executor_work as work
import pytest
from dask_tools import ROOT, Cluster, cluster, free_port

pytest.importorskip("distributed")

from distributed import Client

from muomni.data.dask_cluster import code_fingerprint, run_on_worker
from muomni.data.processes import Call, executor, map_lists
from muomni.errors import UserError


@pytest.fixture(scope="module")
def nannies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers that are started again when they die."""
    with cluster(tmp_path_factory.mktemp("dask"), 2, nanny=True) as made:
        yield made


def test_results_are_in_order_and_what_kills_its_workers_is_given_up(
    nannies: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUOMNI_DASK", nannies.address)
    lists = [[n, n + 1] for n in range(0, 12, 2)]
    with executor(1) as pool:
        assert list(pool.map(work.squared, range(30), 3)) == [n * n + 3 for n in range(30)]
        with pytest.raises(UserError, match="number 1 is not wanted"):
            list(pool.map(work.refused, [1, 2, 3]))
        made = list(map_lists(pool, work.deadly, lists, 7))
        assert isinstance(made[3][1], str) and "it killed its worker 3 times" in made[3][1]
        made[3][1] = 49
        assert made == [[n * n for n in numbers] for numbers in lists]
        for bad, message in ((lambda n: n, "cannot be imported"), (work.squared, "send a path")):
            with pytest.raises(ValueError, match=message):
                list(pool.map(bad, [b"x" * 5_000_000]))


def test_files_that_a_worker_does_not_see_and_other_code_are_one_line(
    nannies: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUOMNI_DASK", nannies.address)
    with executor(1) as pool, pytest.raises(UserError, match="not-mounted is not there; have every worker") as error:
        list(pool.map(work.squared, [1, 2], needs=[tmp_path / "not-mounted"]))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="another version of muomni"):
        run_on_worker(Call(work.squared, 2, (), ()), code_fingerprint()[::-1])


def test_ctrl_c_leaves_no_work_on_the_cluster(nannies: Cluster, tmp_path: Path) -> None:
    # What was started in a script's background ignores SIGINT, and so do its children.
    code = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from muomni.data.processes import executor\nimport executor_work\n"
    code += f"with executor(1) as pool:\n    list(pool.map(executor_work.slow, range(9999), {str(tmp_path)!r}))\n"
    paths = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    env = {**os.environ, "PYTHONPATH": paths, "MUOMNI_DASK": nannies.address}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE) as child:
        wait(lambda: len(list(tmp_path.iterdir())) > 10)
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=30)
    assert child.returncode != 0 and b"KeyboardInterrupt" in told
    with Client(nannies.address, set_as_default=False) as client:
        wait(lambda: not any(client.processing().values()))
    seen = len(list(tmp_path.iterdir()))
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) == seen


def wait(done: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


def test_no_scheduler_and_one_that_goes_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muomni.data.dask_cluster.CONNECTING", 1.0)
    for address in (f"tcp://127.0.0.1:{free_port()}", "nonsense://x", "tcp://"):
        monkeypatch.setenv("MUOMNI_DASK", address)
        with pytest.raises(UserError, match="no Dask scheduler answers") as error:
            executor(2)
        assert "\n" not in str(error.value)
    monkeypatch.setattr("muomni.data.dask_cluster.CONNECTING", 15.0)
    monkeypatch.setattr("muomni.data.dask_cluster.WORKERLESS", 1.0)
    with cluster(tmp_path, 1) as made:
        monkeypatch.setenv("MUOMNI_DASK", made.address)
        with executor(2) as pool:
            results = pool.map(work.slow, range(100), str(tmp_path))
            assert next(results) == 0
            made.processes[1].kill()
            with pytest.raises(UserError, match="has had no Dask worker for 1 s"):
                list(results)
            monkeypatch.setattr("muomni.data.dask_cluster.WORKERLESS", 60.0)
            made.worker()
            results = pool.map(work.slow, range(100), str(tmp_path))
            assert next(results) == 0
            made.scheduler.kill()
            with pytest.raises(UserError, match="the Dask scheduler is gone") as error:
                list(results)
            assert "\n" not in str(error.value)
