"""Locks: one that somebody holds, and one that cannot be taken, are told apart. The processes are real ones."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from muomni.errors import UserError
from pipelines import locks
from pipelines.run import take_lock

ROOT = Path(__file__).resolve().parents[1]

# Has the kernel answer ENOLCK to this process when it asks for a lock, as it does for some network file systems.
NO_LOCKS = """
import ctypes, errno, struct, sys
FLOCK, FCNTL = {"x86_64": (73, 72), "aarch64": (32, 25)}[sys.argv.pop()]
LOAD, EQUAL, RETURN, ALLOW, FAIL = 0x20, 0x15, 0x06, 0x7FFF0000, 0x00050000 | errno.ENOLCK
steps = [(LOAD, 0, 0, 0), (EQUAL, 4, 0, FLOCK), (EQUAL, 0, 2, FCNTL), (LOAD, 0, 0, 24), (EQUAL, 1, 0, 6),
         (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, FAIL)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(Filter(len(steps), ctypes.addressof(code))), 0, 0) == 0  # PR_SET_SECCOMP
"""

STAGE = """
import time
from pathlib import Path
from pipelines.run import main, state_root
def work():
    (state_root() / "go").write_text("1")
    time.sleep(WAIT)
main("demo", work)
"""


def python(code: str, state: Path, *words: str) -> list[str]:
    """The command of a program in a state folder."""
    return ["env", f"MUOMNI_STATE={state}", f"PYTHONPATH={ROOT}", sys.executable, "-c", code, *words]


def run(code: str, state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a state folder."""
    return subprocess.run(python(code, state, *words), capture_output=True, text=True, check=False)


def is_line(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """One line on standard error, with these parts, and exit code 2."""
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert all(part in done.stderr for part in parts), done.stderr


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="numbers of system calls are not known")
def test_a_file_system_without_locks_is_not_a_stage_that_runs(tmp_path: Path) -> None:
    machine = platform.machine()
    done = run(NO_LOCKS + STAGE.replace("WAIT", "0"), tmp_path, machine)
    if "AssertionError" in done.stderr:
        pytest.skip("the kernel takes no filter of system calls here")
    is_line(done, "demo.lock: cannot be locked (No locks available)")
    assert "running already" not in done.stderr and not (tmp_path / "go").exists()
    for call in ("take", "holder"):
        code = f"from pathlib import Path; from pipelines import locks; locks.{call}(Path(sys.argv[1]))"
        (tmp_path / "lock").touch()
        done = run(NO_LOCKS + code, tmp_path, str(tmp_path / "lock"), machine)
        assert done.stderr.splitlines()[-1].startswith("muomni.errors.UserError"), done.stderr
        assert "cannot be locked (No locks available)" in done.stderr


def test_a_state_folder_that_is_a_file_or_a_link_to_nowhere_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for place in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "loop"):
        is_line(run(STAGE.replace("WAIT", "0"), place), str(place), "cannot be locked")
    (tmp_path / "state" / "demo.lock").mkdir(parents=True)
    with pytest.raises(UserError, match=r"demo.lock: cannot be locked \(Is a directory\)"):
        take_lock("demo", tmp_path)
    with pytest.raises(UserError, match="cannot be locked"):
        locks.holder(tmp_path / "state" / "demo.lock")


def test_a_full_disk_does_not_leave_a_lock_without_its_name() -> None:
    with pytest.raises(OSError) as caught:
        locks.take(Path("/dev/full"))
    assert caught.value.filename == "/dev/full"


def test_of_two_processes_on_one_state_the_second_is_told_of_the_first(tmp_path: Path) -> None:
    first = subprocess.Popen(python(STAGE.replace("WAIT", "60"), tmp_path))
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "go").exists():
            assert time.monotonic() < end and first.poll() is None
            time.sleep(0.02)
        is_line(run(STAGE.replace("WAIT", "0"), tmp_path), "'demo' is running already", f"process {first.pid}")
    finally:
        first.kill()
        first.wait()
    assert run(STAGE.replace("WAIT", "0"), tmp_path).returncode == 0


def test_two_smoke_runs_do_not_remove_each_others_copy(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['smoke']; from pipelines.smoke import main; main()"
    (tmp_path / "smoke").mkdir()
    (tmp_path / "smoke" / "mine").touch()
    with locks.held(tmp_path / "smoke.lock"):
        is_line(run(code, tmp_path), "a smoke run works there already", f"process {os.getpid()}")
    assert (tmp_path / "smoke" / "mine").exists()
