"""A full disk and one that only reads: real ones, in a mount namespace of their own, where the system allows that."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DEAD = "http://127.0.0.1:9"  # no tracker: MLflow's own database would fill the disk, and take its time
TESTS = Path(__file__).resolve().parent

# Runs as root of a user namespace of its own: mounts a small disk in the folder it is given, and works there.
PROLOGUE = f"""
import errno, json, os, subprocess, sys
from pathlib import Path
sys.path.insert(0, {str(TESTS)!r})
disk = Path(sys.argv[1])
def mount(*options):
    subprocess.run(["mount", "-t", "tmpfs", *options, "none", str(disk)], check=True)
def remount(options):
    subprocess.run(["mount", "-o", "remount," + options, str(disk)], check=True)
def fill(leave):
    "Fill the disk but for some bytes."
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize
    filler.write_bytes(bytes(max(0, free - leave)))
"""


def namespaces() -> bool:
    """Whether a process may have mounts of its own here."""
    probe = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none "$0"', "/tmp"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not namespaces(), reason="unprivileged mount namespaces are switched off here")


def on_a_small_disk(script: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script that mounts a disk in a folder."""
    return subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", PROLOGUE + script, str(folder)],
        cwd=folder,
        env={**os.environ, "MUOMNI_STATE": str(folder / "state"), "MLFLOW_TRACKING_URI": "", **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


KINDS = """
import numpy as np, torch
from torch import nn
from small_models import SENTENCES, small_tokenizer
from muomni.checkpoint import load_checkpoint, make_card, save_checkpoint
from muomni.data.files import atomic_write_json, write_jsonl
from muomni.data.packing import pack_split
from muomni.data.shards import ShardWriter
from muomni.errors import UserError, refused
from muomni.sound import GrowingSound, save_audio
from muomni.tokenizer import Tokenizer
from muomni.train.report import MetricsFile, read_metrics
from muomni.train.state import STATE_FILE, load_state, save_state
from muomni.train.weights import keep_weights
from pipelines.run import record

mount("-o", "size=8m")
os.chdir(disk)
os.environ["MUOMNI_STATE"] = str(disk / "times-state")
(disk / "other").mkdir()
tokenizer = small_tokenizer(disk / "other")
noise = np.random.default_rng(0).bytes(200_000).hex()
line = nn.Linear(200, 200)
card = make_card("line", line, data={}, params={}, metrics={}, seconds=0.0)

def shards():
    with ShardWriter(disk, "train", 100) as writer:
        for number in range(40):
            writer.write(f"{number}", {"png": noise[:10_000].encode()})

def metrics():
    file = MetricsFile(disk / "metrics.jsonl")
    try:
        for step in range(2000):
            file.write(step, {"loss": 1.0, noise[:200]: 2.0})
    finally:
        file.close()

def sound():
    sink = GrowingSound(disk / "growing.wav", 16000)
    for _ in range(20):
        sink.write(np.zeros(16000))

rows = [{"id": str(n), "source": "s", "text": SENTENCES[n % 5] * 50} for n in range(300)]
kinds = {
    "manifest.json": lambda: atomic_write_json(disk / "manifest.json", {"noise": noise}),
    "rows.jsonl": lambda: write_jsonl(disk / "rows.jsonl", [{"noise": noise}]),
    "train-000000.tar": shards,
    "train.bin": lambda: pack_split(rows, tokenizer, disk / "train.bin"),
    "tokenizer.model": lambda: small_tokenizer(disk),
    "state.safetensors": lambda: save_state(disk, {"line": line}, [], {}, {"step": 3}),
    "model.safetensors": lambda: save_checkpoint(disk / "line", line.state_dict(), {}, card),
    "step-000003": lambda: keep_weights(disk / "checkpoints", 3, {"line": line}, {"loss": 1.0}),
    "metrics.jsonl": metrics,
    "answer.wav": lambda: save_audio(disk / "answer.wav", np.zeros(160_000), 16000),
    "growing.wav": sound,
    "slow.json": lambda: record("slow", 1.0, 2),
}
where = {"model.safetensors": disk / "line" / "card.json",
         "step-000003": disk / "checkpoints" / "step-000003" / "metrics.json",
         "slow.json": disk / "times-state" / "times" / "slow.json"}
said = {}
for name, write in kinds.items():
    path = where.get(name, disk / name)
    grows = name in ("metrics.jsonl", "growing.wav")  # what is in the first is looked at below
    for before in ("missing",) if grows else ("missing", "there"):
        if before == "there":
            (disk / "filler").unlink(missing_ok=True)
            write()
            old = path.read_bytes()
        fill(4096 if name != "slow.json" else 0)
        try:
            write()
            message = "written"
        except UserError as error:
            message = str(error)
        except OSError as error:
            message = str(refused(error))
        said[f"{name} {before}"] = message
        if grows:
            continue
        if before == "missing":
            assert not path.exists(), f"{path}: half-written"
        else:
            assert path.read_bytes() == old, f"{path}: the old content is gone"
(disk / "filler").unlink()
lines = read_metrics(disk / "metrics.jsonl")
assert [line["step"] for line in lines] == list(range(len(lines))) and len(lines) > 10, len(lines)
file = MetricsFile(disk / "metrics.jsonl")  # goes on where it was, without the line that was cut off
file.write(5000, {"loss": 3.0})
assert [line["step"] for line in read_metrics(disk / "metrics.jsonl")] == [*range(len(lines)), 5000]
assert load_checkpoint(disk / "line").card["component"] == "line"
assert load_state(disk)[1]["step"] == 3
print(json.dumps(said))
"""


def test_every_kind_of_file_is_whole_or_as_it_was_and_the_message_names_it(tmp_path: Path) -> None:
    done = on_a_small_disk(KINDS, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert len(said) == 22
    for kind, message in said.items():
        assert "No space left on device" in message, (kind, message)
        assert kind.split()[0].partition(".")[0] in message, (kind, message)


STAGE = """
import test_tracking, time
from pipelines import run, tracking
tracking.INTERVAL = tracking.LAST_CHANCE = 0.1
from torch import nn
import torch

class Wide(test_tracking.Line):
    def __init__(self):
        torch.manual_seed(1)
        super().__init__()
        self.ballast = nn.Linear(500, 500)  # 1 MB: the state of step 20 does not fit beside what is there
        self.modules = {"line": self.model, "ballast": self.ballast}

def work():
    test_tracking.stage(Wide(), steps=40)

if sys.argv[1] != "plain":
    os.chdir(disk)
"""


def test_a_training_stops_in_one_line_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    small, plain = tmp_path / "small", tmp_path / "plain"
    small.mkdir()
    plain.mkdir()
    # The parent mounts, the stages are its children: the first has room for one state and its successor's half.
    script = f"""
stage = {STAGE!r}
head = {PROLOGUE!r}
mount("-o", "size=60m")
def train():
    code = head + stage + 'run.main("a-thinker", work)'
    env = dict(os.environ, MUOMNI_STATE=str(disk / "state"), MLFLOW_TRACKING_URI={DEAD!r})
    return subprocess.run([sys.executable, "-c", code, str(disk)], capture_output=True, text=True, env=env, cwd=disk)
fill(2_500_000)
first = train()
(disk / "filler").unlink()
second = train()
print(json.dumps([[d.returncode, d.stdout, d.stderr] for d in (first, second)]))
from muomni.checkpoint import load_checkpoint
print(json.dumps(load_checkpoint(disk / "checkpoints" / "thinker").state["weight"].tolist()))
"""
    done = on_a_small_disk(script, small)
    assert done.returncode == 0, done.stderr[-2000:]
    runs, weights = (json.loads(line) for line in done.stdout.splitlines())
    (code, _, err), (again, _, told) = runs
    assert code == 2 and "Traceback" not in err, err
    assert "No space left on device; free some space" in err.splitlines()[-1], err
    assert again == 0 and "going on after step" in told, told
    reference = subprocess.run(
        [sys.executable, "-c", PROLOGUE + STAGE.replace("os.chdir(disk)", "pass") + "work()", str(plain)],
        cwd=plain,
        env={**os.environ, "MUOMNI_STATE": str(plain / "state"), "MLFLOW_TRACKING_URI": DEAD},
        capture_output=True,
        text=True,
        check=False,
    )
    assert reference.returncode == 0, reference.stderr[-2000:]
    from muomni.checkpoint import load_checkpoint

    assert weights == load_checkpoint(plain / "checkpoints" / "thinker").state["weight"].tolist()
