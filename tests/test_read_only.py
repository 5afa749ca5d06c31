"""Folders that cannot be written to: what only reads works, and what writes says one line that names the place.

Root may write anywhere, so as root the commands run without that privilege (CAP_DAC_OVERRIDE).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RIGHTS = "-dac_override,-dac_read_search,-fowner"
WITHOUT = ["setpriv", f"--bounding-set={RIGHTS}", f"--inh-caps={RIGHTS}"] if os.geteuid() == 0 else []


def bound(folder: Path) -> bool:
    """Whether rights of folders bind a process that is started so."""
    folder.chmod(0o555)
    try:
        done = subprocess.run([*WITHOUT, "touch", folder / "x"], capture_output=True, check=False)
    except OSError:
        return False
    finally:
        folder.chmod(0o755)
    return done.returncode != 0 and not (folder / "x").exists()


@pytest.fixture
def checkout(tmp_path: Path, checkpoint: Path) -> Iterator[Path]:
    """A folder with what commands look for, a trained model among it."""
    if not bound(tmp_path):
        pytest.skip("rights do not bind here: root without setpriv, or a file system without them")
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    shutil.copy(ROOT / "profiles" / "smoke.yaml", folder / "params.yaml")
    shutil.copytree(checkpoint, folder / "checkpoints" / "omni")
    for name in ("data", "metrics", ".muomni/state"):
        (folder / name).mkdir(parents=True)
    yield folder
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)


def seal(folder: Path) -> dict[Path, bytes | None]:
    """Make a folder and all below it read-only; what is there."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return there(folder)


def there(folder: Path) -> dict[Path, bytes | None]:
    """All files below a folder with their content, and its folders."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``python`` with these words."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MUOMNI_", "DVC_", "MLFLOW_"))}
    command = [*WITHOUT, sys.executable, *words]
    return subprocess.run(
        command, cwd=folder, env=env | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )


def is_line(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Exit code 2, and an error of one line, after what the command told before, with these parts."""
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: ") and "Traceback" not in done.stderr, done.stderr
    assert all(part in last for part in parts), last


def test_commands_that_only_read_work_in_a_checkout_that_cannot_be_written_to(checkout: Path) -> None:
    before = seal(checkout)
    for words, said in (
        (["params"], "Thinker"),
        (["profile"], "smoke"),
        (["chat", "--text", "What is it?", "--max-tokens", "3"], ""),
        (["verify"], "omni"),
    ):
        done = run(checkout, "-m", "muomni.cli", *words)
        assert done.returncode in ((0, 1) if words == ["verify"] else (0,)), done.stderr
        assert said in done.stdout and "Traceback" not in done.stderr and "error:" not in done.stderr, done.stderr
    assert there(checkout) == before


def test_outputs_of_commands_that_cannot_be_written(checkout: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "old.wav").write_bytes(b"old")
    (checkout / "old.wav").write_bytes(b"old")
    before = seal(closed)
    for words in (["--audio-out", f"{closed}/new.wav"], ["--audio-out", f"{closed}/old.wav", "--stream"]):
        done = run(checkout, "-m", "muomni.cli", "chat", "--text", "What?", "--max-tokens", "3", *words)
        is_line(done, words[1], "cannot be written")
        assert done.stdout == "", "before any work is done"
    seal(checkout)
    for words in (
        ["bench", "--json", "new/bench.json"],
        ["evaluate", "speech"],
        ["bench", "--curves", "params.yaml/x.png"],
    ):
        done = run(checkout, "-m", "muomni.cli", *words)
        is_line(done, words[-1] if "bench" in words else "metrics/check", "cannot be written, because of")
    is_line(run(checkout, "-m", "muomni.cli", "profile", "tiny"), "params.yaml", "Permission denied")
    assert there(closed) == before
    closed.chmod(0o755)
    (closed / "old.wav").chmod(0o444)  # the file, not the folder
    for stream in ([], ["--stream"]):
        words = ["--audio-out", f"{closed}/old.wav", *stream]
        done = run(checkout, "-m", "muomni.cli", "chat", "--text", "What?", "--max-tokens", "3", *words)
        is_line(done, f"{closed}/old.wav", "cannot be written")
    assert there(closed) == before


STAGES = {
    "folder": """
with new_dir("data/tokens") as folder:
    (folder / "one").write_text("1")
""",
    "checkpoint": """
line = nn.Linear(2, 2)
card = make_card("line", line, data={}, params={}, metrics={}, seconds=0.0)
save_checkpoint("checkpoints/line", line.state_dict(), {}, card)
""",
    "curves": """
with new_curves("demo") as folder:
    write_curves(folder, [{"step": 1, "loss": 1.0}])
""",
    "figures": 'atomic_write_json("metrics/summary.json", {"a": 1})',
    "state": 'state_dir("demo")',
}


@pytest.mark.parametrize(
    ("stage", "closed"),
    [
        ("folder", "data"),
        ("checkpoint", "checkpoints"),
        ("curves", "metrics"),
        ("figures", "metrics"),
        ("state", ".muomni"),
    ],
)
def test_a_stage_whose_folder_is_closed_says_so_and_leaves_nothing(checkout: Path, stage: str, closed: str) -> None:
    head = "from muomni.data.files import atomic_write_json\nfrom pipelines.run import main, new_dir, state_dir\n"
    if stage in ("checkpoint", "curves"):
        head += "from torch import nn\nfrom muomni.checkpoint import make_card, save_checkpoint\n"
        head += "from pipelines.training import new_curves, write_curves\n"
    body = "".join(f"    {line}\n" for line in STAGES[stage].strip().splitlines())
    before = seal(checkout / closed)
    is_line(run(checkout, "-c", f"{head}def work():\n{body}main('demo', work)"), closed, "Permission denied")
    assert there(checkout / closed) == before


@pytest.mark.parametrize("module", ["smoke", "flows", "deploy", "dvc_cache"])
def test_programs_that_keep_something_in_the_state_folder_say_so(checkout: Path, module: str) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=checkout, check=True)
    (checkout / ".dvc").mkdir()
    before = seal(checkout / ".muomni")
    (checkout / "dvc.lock").write_text("broken")
    checkout.chmod(0o555)
    is_line(run(checkout, "-m", f"pipelines.{module}"), "Permission denied")
    assert there(checkout / ".muomni") == before and (checkout / "dvc.lock").read_text() == "broken"
