"""What running from Prefect costs, and whether a queue loses anything: ``make bench-runs``.

A small project with a fake training stands in for ours (tests/fake_project.py), so that what is measured is the way and
not the work: Prefect, dvc and MLflow are real. Prints JSON.
"""

import argparse
import json
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fake_project import commit_all, copy_of_this, environment, make_project  # noqa: E402
from workplace import Place, opened  # noqa: E402

RUNS = 20
STEPS = 60


def moment(text: str) -> float:
    """Unix time of the API's timestamps, seconds."""
    return datetime.fromisoformat(text).timestamp()


def to_training(place: Place, seeds: range) -> list[float]:
    """Seconds from the request to the start of the training stage, other stages being in the cache."""
    place.ended(place.start(changes={"seed": 1, "a_thinker": {"steps": STEPS}}))
    found = []
    for number in seeds:
        begin = time.time()
        flow_run = place.start(changes={"seed": 1, "a_thinker": {"steps": STEPS, "lr": 0.005 + 0.001 * number}})
        assert place.ended(flow_run) == "COMPLETED", place.logs(flow_run)
        (training,) = [task for task in place.tasks(flow_run) if task["name"] == "a-slow"]
        found.append(moment(training["start_time"]) - begin)
    return found


def queue(place: Place) -> dict[str, Any]:
    """Start many runs at once."""
    begin = time.time()
    started = [place.start(name=f"queued-{i}", changes={"seed": 100 + i}) for i in range(RUNS)]
    states = [place.ended(flow_run, 60 * RUNS) for flow_run in started]
    spans = sorted(
        (moment(r["start_time"]), moment(r["end_time"])) for r in map(lambda i: place.get(f"flow_runs/{i}"), started)
    )
    logs = "".join(path.read_text(errors="replace") for path in (place.folder / ".muomni/workplace").glob("*.log"))
    with sqlite3.connect(place.folder / "mlruns/mlflow.db") as base:
        rows = base.execute(
            "select count(*) from metrics m join runs r on r.run_uuid = m.run_uuid "
            "join tags t on t.run_uuid = r.run_uuid and t.key = 'dvc_exp' and t.value like 'queued-%' "
            "where r.name = 'a-slow' and m.key = 'loss' group by r.run_uuid"
        ).fetchall()
    return {
        "runs": RUNS,
        "completed": states.count("COMPLETED"),
        "two at a time": sum(a[1] > b[0] for a, b in zip(spans, spans[1:], strict=False)),
        "requests repeated (503)": place.asked_again,
        "database is locked": [line[:200] for line in logs.splitlines() if "database is locked" in line],
        "runs in MLflow": len(rows),
        "points of loss in each, least and most": [min(rows)[0], max(rows)[0]] if rows else [],
        "points expected": STEPS // 10,
        "seconds a run": round((time.time() - begin) / RUNS, 1),
    }


def fresh_copy(folder: Path) -> Path:
    """This checkout as it is, committed, with profile smoke, no cache and no runs."""
    copy_of_this(folder)
    shutil.copy(folder / "profiles" / "smoke.yaml", folder / "params.yaml")
    commit_all(folder)
    return folder


def share(parent: Path, rounds: int) -> dict[str, Any]:
    """Seconds of the real graph at profile smoke, by `dvc repro` and as a run from Prefect, one after the other."""
    found: dict[str, list[float]] = {"dvc repro": [], "run from Prefect": []}
    for number in range(rounds):
        plain = fresh_copy(parent / f"plain-{number}")
        begin = time.time()
        env = environment(plain) | {"PYTHONPATH": str(plain)}
        subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=plain, env=env, check=True, capture_output=True)
        found["dvc repro"].append(round(time.time() - begin, 1))
        with opened(fresh_copy(parent / f"prefect-{number}")) as place:
            begin = time.time()
            flow_run = place.start()
            assert place.ended(flow_run, 1800) == "COMPLETED", place.logs(flow_run)
            found["run from Prefect"].append(round(time.time() - begin, 1))
    more = statistics.median(found["run from Prefect"]) - statistics.median(found["dvc repro"])
    return found | {"more, s": round(more, 1)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--share", type=int, default=0, metavar="N", help="compare N whole runs at profile smoke instead"
    )
    options = parser.parse_args()
    if options.share:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(share(Path(folder), options.share), indent=1))
        return
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        project.mkdir()
        make_project(project, STEPS)
        with opened(project) as place:
            seconds = to_training(place, range(5))
            found = {
                "request to start of training, s, median of 5": round(statistics.median(seconds), 1),
                "most": round(max(seconds), 1),
                "queue": queue(place),
            }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
