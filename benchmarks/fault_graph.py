"""A copy of the checkout in which the graph runs, is killed by `faults.py`, and is compared with its first run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from muomni.checkpoint import load_checkpoint, weights_sha256
from muomni.data.files import sha256_file, sha256_folder
from muomni.errors import UserError
from muomni.train.report import read_metrics
from muomni.train.state import STATE_FILE, load_state
from pipelines.dvc_lock import mend
from pipelines.smoke import prepare

HOOK = Path(__file__).with_name("fault_hook.py")
# What makes profile smoke save often, and the same bits in every run of it.
CHANGES: dict[str, dict[str, Any]] = {
    "device": {"threads": 1},
    **{
        name: {"steps": 16, "eval_every": 8, "save_every": 4, "warmup": 2}
        for name in ("a_thinker", "b_audio_encoder", "c_vision_encoder", "d_codec", "d_talker", "d_vocoder", "e_omni")
    },
}
TIMES = ("seconds", "samples_per_second", "waiting_for_data", "memory_mb", "peak_memory_mb", "time")
PATIENCE = 600.0  # seconds that a stage may take
AFTER = 20.0  # seconds in which all of a killed run's processes must be gone


@dataclass
class Stage:
    """A stage of the graph: its name and outputs, and what a run without a fault showed of it."""

    name: str
    outs: list[str]
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    reference: dict[str, str] = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        """Whether it is a training."""
        return any(out.startswith("checkpoints/") for out in self.outs)


def read_stages(folder: Path, order: list[str]) -> list[Stage]:
    """The stages of ``dvc.yaml`` in a given order."""
    described = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

    def outs(name: str) -> list[str]:
        entries = [entry for kind in ("outs", "metrics", "plots") for entry in described[name].get(kind, [])]
        return [next(iter(entry)) if isinstance(entry, dict) else str(entry) for entry in entries]

    return [Stage(name, outs(name)) for name in order]


def settled(value: Any) -> Any:
    """A document of figures without what another run measures differently: times and memory."""
    if isinstance(value, dict):
        return {key: settled(item) for key, item in value.items() if key not in TIMES}
    return [settled(item) for item in value] if isinstance(value, list) else value


def cmdline(process: psutil.Process) -> list[str]:
    """A process's words; empty if it is gone."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def session_of(process: psutil.Process) -> int:
    """The session of a living process; -1 of one that is gone."""
    try:
        return -1 if process.status() == psutil.STATUS_ZOMBIE else os.getsid(process.pid)
    except (psutil.Error, OSError):
        return -1


class Copy:
    """The copy, with what a run in it is killed by and compared with.

    Args:
        name: what messages call it.
        folder: where it lies.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.losses: list[str] = []
        self.mark = folder.with_name(f"{folder.name}.reached")
        self.counted = folder.with_name(f"{folder.name}.counts")
        self.log = folder.with_name(f"{folder.name}.log").open("w", encoding="utf-8")
        self.env: dict[str, str] = {}
        self.stages: list[Stage] = []

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"[{self.name}] {text}", flush=True)

    def lose(self, text: str) -> None:
        """Note something that must not be."""
        self.losses.append(text)
        self.say(f"LOSS: {text}")

    # Running

    def set_up(self) -> None:
        """Lay out the copy, and run it without a fault."""
        self.env = prepare(Path.cwd(), self.folder, "smoke")
        hooks = self.folder.with_name(f"{self.folder.name}.hook")
        hooks.mkdir(exist_ok=True)
        shutil.copy(HOOK, hooks / "sitecustomize.py")
        self.env |= {"PYTHONPATH": f"{hooks}{os.pathsep}{self.folder}", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        self.env.pop("MLFLOW_TRACKING_URI", None)
        params = yaml.safe_load((self.folder / "params.yaml").read_text(encoding="utf-8"))
        for section, values in CHANGES.items():
            params[section] |= values
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
        began = time.monotonic()
        code, out = self.dvc("repro")
        if code:
            raise UserError(f"the run without a fault failed; see {self.log.name}")
        order = [line.split("'")[1] for line in out.splitlines() if line.startswith("Running stage '")]
        self.stages = read_stages(self.folder, order)
        for stage in self.stages:
            stage.reference = self.found(stage)
        self.say(f"uninterrupted: {len(self.stages)} stages, {time.monotonic() - began:.0f} s")

    def again(self, stage: Stage, **how: Any) -> tuple[int, str]:
        """Run a stage alone, as ``make repro`` does; forced, or dvc would take its outputs from the cache."""
        mend(self.folder)
        return self.dvc("repro", "--single-item", "--force", "--no-run-cache", stage.name, **how)

    def dvc(
        self, *words: str, plan: dict[str, Any] | None = None, kill: tuple[str, float] | None = None
    ) -> tuple[int, str]:
        """Run dvc in the copy.

        Args:
            words: its arguments.
            plan: for `fault_hook`.
            kill: ``stage`` or ``all``, and after how many seconds.

        Returns:
            Exit code (negative for a signal) and output.
        """
        env = dict(self.env)
        self.mark.unlink(missing_ok=True)
        if plan is not None:
            env["FAULT_PLAN"] = json.dumps({"root": str(self.folder), "mark": str(self.mark), **plan})
        process = subprocess.Popen(
            [sys.executable, "-m", "dvc", *words],
            cwd=self.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        timer = threading.Timer(kill[1], self.strike, (process.pid, kill[0])) if kill else None
        if timer:
            timer.start()
        try:
            out, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, _ = process.communicate()
            self.lose(f"dvc {' '.join(words)}: still running after {PATIENCE:.0f} s")
        if timer:
            timer.cancel()
            timer.join()
        self.log.write(f"--- dvc {' '.join(words)} {plan} {kill}\n{out}--- {process.returncode}\n")
        self.log.flush()
        self.await_end(process.pid)
        return process.returncode, out

    def strike(self, pid: int, whom: str) -> None:
        """Kill -9 a run's stage, or all of its processes, dvc first."""
        try:
            victims = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        except psutil.Error:
            return
        if whom == "stage":
            victims = [p for p in victims if any(word.startswith("pipelines.") for word in cmdline(p))]
        if victims:
            self.mark.touch()
        for process in victims:
            try:
                process.kill()
            except psutil.Error:
                continue

    def await_end(self, session: int) -> None:
        """Wait until no process of a run is left."""
        end = time.monotonic() + AFTER
        while left := [p for p in psutil.process_iter() if session_of(p) == session]:
            if time.monotonic() > end:
                self.lose(f"left behind: {[cmdline(p) for p in left]}")
                for process in left:
                    process.kill()
                return
            time.sleep(0.05)

    # Comparing

    def found(self, stage: Stage) -> dict[str, str]:
        """A hash of every output, of what does not differ from run to run."""
        hashes = {}
        for out in stage.outs:
            path = self.folder / out
            if out.startswith("checkpoints/"):
                load_checkpoint(path)
                others = [p.name for p in path.iterdir() if p.name not in ("card.json", "model.safetensors")]
                hashes[out] = weights_sha256(path) + "".join(sha256_file(path / name) for name in sorted(others))
            elif out.startswith(("metrics/", "plots")):
                for file in sorted(path.rglob("*.json")) if path.is_dir() else [path]:
                    value = settled(json.loads(file.read_text(encoding="utf-8")))
                    if out != "metrics/registry.json":
                        hashes[file.relative_to(self.folder).as_posix()] = json.dumps(value, sort_keys=True)
            else:
                hashes[out] = sha256_folder(path, ())
        return hashes

    def compare(self, stage: Stage, when: str) -> None:
        """What a stage wrote against the reference."""
        try:
            found = self.found(stage)
        except (UserError, OSError, ValueError) as error:
            self.lose(f"{stage.name}: {when}: {error}")
            return
        for name in sorted({*found, *stage.reference}):
            if found.get(name) != stage.reference.get(name):
                self.lose(f"{stage.name}: {when}: {name} differs from the uninterrupted run's")

    def look_for_halves(self, stage: Stage, when: str) -> None:
        """After a kill: what lies under a final name is whole, or its reader refuses it."""
        for out in stage.outs:
            path = self.folder / out
            if not path.exists():
                continue
            if out.startswith("checkpoints/"):
                try:
                    load_checkpoint(path)
                except UserError:
                    continue
                if weights_sha256(path) != stage.reference[out][:64]:
                    self.lose(f"{stage.name}: {when}: {out} can be read, and holds other weights")
            elif path.is_file():
                try:
                    json.loads(path.read_text(encoding="utf-8"))
                except ValueError:
                    self.lose(f"{stage.name}: {when}: {out} is cut off")
            elif out.startswith("data/"):  # dvc may have been about to remove it, file by file
                for file in path.rglob("*"):
                    name = file.relative_to(self.folder).as_posix()
                    if file.is_file() and sha256_file(file) != stage.files.get(name):
                        self.lose(f"{stage.name}: {when}: {name} is not what it is in the end")
        state = self.folder / ".muomni" / "state" / stage.name
        if (state / STATE_FILE).exists() and load_state(state) is None:
            self.lose(f"{stage.name}: {when}: {STATE_FILE} cannot be read")
        lines = read_metrics(state / "metrics.jsonl")
        if len({line["step"] for line in lines}) != len(lines):
            self.lose(f"{stage.name}: {when}: a step has two lines of metrics")

    def close_up(self, whole: bool) -> None:
        """What must hold in the end; `whole` if every stage was run to its end since."""
        mend(self.folder)
        code, out = self.dvc("repro")
        if code or (whole and "Running stage" in out):
            self.lose(f"dvc repro at the end had something to do: {out.strip().splitlines()[:3]}")
        _, out = self.dvc("status")
        if "up to date" not in out:
            self.lose(f"dvc status is not clean: {out.strip()[:300]}")
        if whole:
            for stage in self.stages:
                self.compare(stage, "at the end")
        self.check_tracking()

    def check_tracking(self) -> None:
        """MLflow: nothing running, no version twice."""
        command = [sys.executable, "-m", "muomni.cli", "track", "sync"]
        subprocess.run(command, cwd=self.folder, env=self.env, check=False, stdout=self.log, stderr=subprocess.STDOUT)
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        from mlflow.tracking import MlflowClient

        client = MlflowClient(f"sqlite:///{self.folder}/mlruns/mlflow.db")
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        states = Counter(run.info.status for run in client.search_runs(experiments, max_results=5000))
        if states["RUNNING"]:
            self.lose(f"MLflow shows {states['RUNNING']} runs as running")
        weights = Counter(
            (v.name, v.tags.get("weights_sha256")) for v in client.search_model_versions(max_results=5000)
        )
        twice = [name for (name, _), n in weights.items() if n > 1]
        if twice:
            self.lose(f"MLflow has versions of the same weights twice: {twice}")
        self.say(f"MLflow: runs {dict(states)}, versions {len(weights)}")
