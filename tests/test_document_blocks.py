"""Every command and code block of README, CONTRIBUTING and docs/ runs, at profile smoke, or says why not.

The project in which they run is the one that ``make smoke KEEP=--keep`` leaves, with today's files on top; where there
is none, it is made, which takes minutes. Blocks run without a network where the machine lets a process leave it.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from own_corpora import sentence, sound, tone
from PIL import Image, ImageDraw

from pipelines.documents import blocks
from pipelines.documents.pages import all_pages
from pipelines.smoke import copy_checkout

ROOT = Path(__file__).parents[1]
PAGES = [page for page in all_pages(ROOT) if blocks.runnable(page, ROOT)]
ALONE = [
    "unshare",
    "-rn",
    "sh",
    "-c",
    'ip link set lo up && exec "$@"',
    "sh",
]  # a network of its own, without a way out
KEPT = ("params.yaml", "dvc.lock")  # of the smoke run


def test_of_every_block_it_is_clear_what_is_done_with_it() -> None:
    assert blocks.unclear(ROOT) == []


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose graph ran at profile smoke, a git checkout with the files that the pages name."""
    ran = Path(os.environ.get("MUOMNI_SMOKE", ROOT / ".muomni" / "smoke"))
    if not (ran / "metrics" / "registry.json").is_file():
        subprocess.run([sys.executable, "-m", "pipelines.smoke", "--keep"], cwd=ROOT, check=True)
    folder = tmp_path_factory.mktemp("documents") / "muomni"
    shutil.copytree(ran, folder, symlinks=True)
    kept = {name: (folder / name).read_bytes() for name in KEPT}
    copy_checkout(ROOT, folder)
    for name, data in kept.items():
        (folder / name).write_bytes(data)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / ".dvc" / "config.local").unlink()
    files(folder)
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    # The project may have run before today's changes of the code: its outputs count as made by them.
    subprocess.run([sys.executable, "-m", "dvc", "commit", "--force", "--quiet"], cwd=folder, check=True)
    return folder


def files(folder: Path) -> None:
    """The small files that the pages' examples name."""
    picture = Image.new("RGB", (120, 120), "white")
    ImageDraw.Draw(picture).ellipse((20, 20, 60, 60), fill="green")
    picture.save(folder / "scene.png")
    for name in ("question.wav", "recording.wav"):
        sound(folder / name, 1.5)
    with av.open(str(folder / "film.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        for shade in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * shade, np.uint8), format="rgb24")
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    (folder / "mine.txt").write_text("The dog is small.\nThere are two cats.\n")
    rows = []
    for number in range(130):  # over the ten minutes that are the least
        wave = tone(5 + number / 100)
        sound(folder / "recordings" / f"{number}.wav", wave=wave * np.hanning(len(wave)).astype(np.float32))
        rows.append(f"{number}.wav,{sentence(number)}")
    (folder / "recordings" / "metadata.csv").write_text("file,text\n" + "\n".join(rows) + "\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_of_a_page_run(page: Path, project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "muomni"
    shutil.copytree(project, folder, symlinks=True)
    (tmp_path / "tmp").mkdir()
    env = {name: text for name, text in os.environ.items() if not name.startswith(("MLFLOW_", "MUOMNI_", "PYTEST_"))}
    env |= {
        "PYTHONPATH": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{env['PATH']}",
        "TMPDIR": str(tmp_path / "tmp"),
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(ROOT / "tests" / "document_runs.py"), str(folder), str(page.relative_to(ROOT))]
    alone = subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    done = subprocess.run(
        [*(ALONE if alone else []), *command], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    assert len(re.findall(rf"^{re.escape(str(page.relative_to(ROOT)))}:\d+: ", done.stdout, re.MULTILINE)) == len(
        blocks.runnable(page, ROOT)
    )
