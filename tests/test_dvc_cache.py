"""What a disk or a program changed in dvc's cache or in an output is found and made again. The dvc is the real one."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.dvc_cache import ASIDE, OBJECTS, check, make_ready

GRAPH = """\
stages:
  one:
    cmd: mkdir d && cat in > d/a && cat in in > d/b && echo x >> ran-one
    deps: [in]
    outs: [d]
  two:
    cmd: cat d/a d/b > both && echo x >> ran-two
    deps: [d]
    outs: [both]
"""
RIGHT = {"d/a": "in\n", "d/b": "in\nin\n", "both": "in\nin\nin\n"}


def dvc(folder: Path, *words: str) -> str:
    """Run dvc, and return what it prints."""
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose graph has run once."""
    folder = tmp_path_factory.mktemp("made")
    dvc(folder, "init", "--no-scm", "--quiet")
    (folder / "dvc.yaml").write_text(GRAPH)
    (folder / "in").write_text("in\n")
    dvc(folder, "repro")
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(made, tmp_path / "project", symlinks=True)


def kept(project: Path, name: str) -> Path:
    """The object of a file, or of the folder's list."""
    listed = next((project / ".dvc/cache" / OBJECTS).glob("*/*.dir"))
    if name == "d":
        return listed
    digests = {f"d/{entry['relpath']}": entry["md5"] for entry in json.loads(listed.read_bytes())}
    return project / ".dvc/cache" / OBJECTS / digests[name][:2] / digests[name][2:]


def spoil(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file as a disk does: its time, and what is allowed with it, stay as they were."""
    found, whole = path.stat(), path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(change(whole))
    path.chmod(found.st_mode)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def flip(data: bytes) -> bytes:
    """Another bit in the middle."""
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def right(project: Path, ran: tuple[int, int]) -> None:
    """All outputs are as they should be, the stages ran so many times, and there is nothing more to do."""
    assert {name: (project / name).read_text() for name in RIGHT} == RIGHT
    assert tuple(len((project / f"ran-{stage}").read_text().split()) for stage in ("one", "two")) == ran
    assert check(project)


@pytest.mark.parametrize("change", [flip, lambda data: data[:-1], lambda data: b""], ids=["flipped", "cut", "emptied"])
def test_a_damaged_object_is_made_again(
    project: Path, change: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(kept(project, "d/a"), change)
    shutil.rmtree(project / "d")
    if change is flip:  # what this is about: dvc hands it out, and says that all is well
        assert "didn't change" in dvc(project, "repro") and (project / "d/a").read_text() != RIGHT["d/a"]
    assert not check(project)
    assert len(list((project / ".dvc/cache" / ASIDE).iterdir())) == 1
    said = capsys.readouterr().err
    assert "damaged; put aside" in said and ("d: is not what dvc.lock says" in said) == (change is flip)
    dvc(project, "repro")
    right(project, (2, 1))


@pytest.mark.parametrize("name", ["d/a", "d"])
def test_a_damaged_object_that_an_output_still_has_is_put_back_and_nothing_runs(project: Path, name: str) -> None:
    path = kept(project, name)
    whole = path.read_bytes()
    spoil(path, flip)
    assert not check(project)
    assert path.read_bytes() == whole and path.stat().st_mode & 0o777 == 0o444
    assert "up to date" in dvc(project, "repro")
    right(project, (1, 1))


def test_a_wrong_list_of_a_folder_is_found_before_a_run_that_would_note_it(project: Path) -> None:
    """Found by trying: with a list that says of ``a`` that it is ``c``, dvc writes ``dvc.lock`` as if that were so."""
    spoil(kept(project, "d"), lambda data: data.replace(b'"a"', b'"c"'))
    shutil.rmtree(project / "d")
    make_ready(project)  # `make repro`
    dvc(project, "repro")
    right(project, (2, 1))


def test_a_changed_output_that_dvc_believes_is_taken_from_the_cache(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dvc(project, "status")  # it hashes what lies there, which was copied
    spoil(project / "d/b", flip)
    assert "up to date" in dvc(project, "repro"), "dvc sees it now"
    assert not check(project)
    assert "d: is not what dvc.lock says" in capsys.readouterr().err
    dvc(project, "repro")
    right(project, (1, 1))


def test_an_output_that_is_one_file_with_its_object_is_made_again(project: Path) -> None:
    """Runs in copies have hard links."""
    dvc(project, "config", "cache.type", "hardlink")
    dvc(project, "checkout", "--relink")
    assert (project / "d/a").samefile(kept(project, "d/a"))
    spoil(project / "d/a", flip)
    assert not check(project)
    dvc(project, "repro")
    right(project, (2, 1))


def test_the_command_tells_with_its_exit_code(project: Path, tmp_path: Path) -> None:
    def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipelines.dvc_cache", *words]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    assert (run(project).returncode, run(project, "--quick").returncode) == (0, 0)
    spoil(kept(project, "d/a"), flip)
    shutil.rmtree(project / "d")
    assert run(project).returncode == 1
    done = run(tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
