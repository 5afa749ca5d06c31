"""A small project with a graph of three stages whose training is slow on purpose: what flows are tested on.

git, dvc, the training loop, its state and its tracking are the real ones.
"""

import os
import subprocess
import sys
from pathlib import Path

from pipelines.smoke import copy_checkout

ROOT = Path(__file__).parents[1]

GRAPH = """\
stages:
  words:
    cmd: python -m fake.words
    deps: [fake/words.py]
    params: [seed]
    outs: [data/words.txt]
  a-slow:
    cmd: python -m fake.slow
    deps: [fake/slow.py, data/words.txt]
    params: [seed, a_thinker]
    outs: [checkpoints/slow, metrics/train/a-slow]
  evaluate:
    cmd: python -m fake.evaluate
    deps: [fake/evaluate.py, checkpoints/slow]
    params: [evaluate]
    metrics: [metrics/summary.json]
"""

WORDS = """\
from pathlib import Path
from muomni.config import scalar
from pipelines.run import main

def run():
    Path("data").mkdir(exist_ok=True)
    Path("data/words.txt").write_text(f"words of seed {scalar('seed')}")
    print("words written")

if __name__ == "__main__":
    main("words", run)
"""

SLOW = """\
import os, time
from pathlib import Path
import torch
from torch import nn
from muomni.config import scalar, section
from muomni.device import DeviceConfig
from muomni.train.a_thinker import ThinkerStageConfig
from pipelines.run import main
from pipelines.training import Output, run_stage

class Slow:
    best_by, frozen = "", {}
    def __init__(self):
        self.modules = {"line": nn.Linear(2, 1)}
    def batch(self, step, micro, rng):
        return torch.rand(4, 2, generator=rng)
    def loss(self, batch, step):
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0.02")))
        return (self.modules["line"](batch) - batch.sum(1, keepdim=True)).square().mean(), {}
    def evaluate(self):
        return {"loss": 0.5}
    def samples(self, step, folder):
        (folder / "sample.txt").write_text(f"after step {step}")

def run():
    cfg, seed = section(ThinkerStageConfig, "a_thinker"), scalar("seed")
    run_stage("a-slow", Slow, lambda task: [Output(Path("checkpoints/slow"), task.modules["line"], {})],
              cfg=cfg, seed=seed, device=DeviceConfig(name="cpu", precision="fp32", threads=1, memory_gb=None),
              params={"a_thinker": cfg, "seed": seed}, data=["data/words.txt"])

if __name__ == "__main__":
    main("a-slow", run)
"""

EVALUATE = """\
import hashlib, json
from pathlib import Path
from pipelines.run import main

def run():
    weights = hashlib.sha256(Path("checkpoints/slow/model.safetensors").read_bytes()).hexdigest()
    found = {"accuracy": {"value": int(weights[:4], 16) / 65536, "n": 10}}
    Path("metrics").mkdir(exist_ok=True)
    Path("metrics/summary.json").write_text(json.dumps(found))

if __name__ == "__main__":
    main("evaluate", run)
"""


def run(folder: Path, *words: str) -> str:
    """Run a command in the project and return what it prints."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def make_project(folder: Path, steps: int = 40) -> None:
    """Write the project, committed, with profile smoke's parameters and a training of some steps."""
    for name, text in {"words": WORDS, "slow": SLOW, "evaluate": EVALUATE}.items():
        path = folder / "fake" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "fake" / "__init__.py").touch()
    (folder / "profiles").mkdir()
    smoke = (ROOT / "profiles" / "smoke.yaml").read_text()
    head, _, rest = smoke.partition("a_thinker:\n  steps: 30\n")
    assert rest, "profile smoke has changed; change this, too"
    params = f"{head}a_thinker:\n  steps: {steps}\n{rest}".replace("  save_every: 30\n", "  save_every: 10\n", 1)
    params = params.replace("  eval_every: 30\n", "  eval_every: 20\n", 1)
    (folder / "params.yaml").write_text(params)
    (folder / "profiles" / "smoke.yaml").write_text(params)
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / ".gitignore").write_text(".muomni/\nmlruns/\n__pycache__/\n/data/\n/checkpoints/\n/metrics/\n")
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    run(folder, sys.executable, "-m", "dvc", "init", "--quiet")
    run(folder, sys.executable, "-m", "dvc", "config", "core.analytics", "false")
    commit_all(folder)


def commit_all(folder: Path) -> None:
    """Make a folder a git repository, with all that is in it committed."""
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    run(folder, "git", "config", "user.name", "A Person")
    run(folder, "git", "config", "user.email", "person@localhost")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "A project")


def copy_of_this(folder: Path) -> None:
    """Copy this checkout as it is now, and commit it there."""
    copy_checkout(ROOT, folder)
    commit_all(folder)


def environment(folder: Path) -> dict[str, str]:
    """The environment of commands in the project: the checkout's packages, everything else of its own."""
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PREFECT_", "MLFLOW_", "MUOMNI_", "DVC_"))
    }
    return env | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}",
        "PYTHONPATH": str(ROOT),
        "MUOMNI_STATE": str(folder / ".muomni"),
        "DVC_NO_ANALYTICS": "1",
    }
