"""Commands and stages without a folder for temporary files: they work, or say one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_full_disk import namespaces

ROOT = Path(__file__).resolve().parents[1]
BOX = """
import os, shutil, subprocess, sys
from pathlib import Path
work, room = Path(sys.argv[1]), sys.argv[2]
def mount(*words):
    subprocess.run(["mount", *words], check=True)
mount("--bind", str(work), "/mnt")  # what is mounted next hides it
os.chdir("/mnt")
for place in ("/tmp", "/var/tmp"):
    mount("-t", "tmpfs", "-o", "size=" + room, "none", place)
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_bsize
    Path(place, "filler").write_bytes(bytes(free))
    if room == "16k":
        mount("-o", "remount,ro", place)
mount("-o", "remount,bind,ro", "/mnt")
os.chdir("/mnt")
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


# The last one PyTorch itself sets once it has looked.
NAMES = ("TMPDIR", "TEMP", "TMP", "MUOMNI_STATE", "TORCHINDUCTOR_CACHE_DIR")


def environment(**more: str) -> dict[str, str]:
    """The environment, without what names folders."""
    env = {key: value for key, value in os.environ.items() if key not in NAMES}
    return env | {"PYTHONPATH": str(ROOT)} | more


NEEDS = "import tempfile; from pipelines.run import main; main('demo', lambda: tempfile.mkdtemp())"


@pytest.mark.parametrize("kind", ["missing", "file", "closed"])
def test_a_tmpdir_that_is_of_no_use_is_passed_over(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    place = {"missing": "/nowhere/at/all", "file": str(tmp_path / "file"), "closed": "/proc/self"}[kind]
    env = environment(TMPDIR=place, MUOMNI_STATE=str(tmp_path / "state"))
    done = subprocess.run([sys.executable, "-c", NEEDS], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not namespaces(), reason="unprivileged mount namespaces are switched off here")
@pytest.mark.parametrize("room", ["8k", "16k"], ids=["full", "read-only"])
def test_with_no_folder_for_temporary_files_at_all(room: str, tmp_path: Path, checkpoint: Path) -> None:
    if ROOT.is_relative_to("/tmp") or ROOT.is_relative_to("/mnt"):
        pytest.skip("the checkout itself would be hidden")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["unshare", "-rm", sys.executable, "-c", BOX, str(checkpoint.parent), room, *words]
        env = environment(MUOMNI_STATE=f"/dev/shm/muomni-{os.getpid()}")
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    done = run("-m", "muomni.cli", "chat", "--checkpoint", "omni", "--text", "What?", "--max-tokens", "3")
    assert done.returncode == 0 and "error:" not in done.stderr and "Traceback" not in done.stderr, done.stderr
    try:
        done = run("-c", NEEDS)
    finally:
        subprocess.run(["rm", "-rf", f"/dev/shm/muomni-{os.getpid()}"], check=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: no folder for temporary files can be written to; have TMPDIR name one")
