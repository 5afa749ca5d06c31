"""Data stages on a real Dask cluster: the same bytes as by local processes, also when a worker is killed half-way."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dask_tools import cluster
from small_models import MEL
from test_image_corpus import config as images_config
from test_own_conversations import FITTING
from test_own_conversations import config as conversations_config
from test_own_conversations import write as write_own
from test_speech_corpus import config as speech_config

pytest.importorskip("distributed")

from muomni.data import image_shards, mel_shards, own_conversations, processes, speech_corpus
from muomni.data.conversations import write_conversations
from muomni.data.dask_cluster import DaskExecutor
from muomni.data.files import sha256_folder
from muomni.data.image_corpus import build_image_corpus
from muomni.data.image_shards import write_image_shards
from muomni.data.mel_shards import write_mel_shards
from muomni.data.shards import SPLITS
from muomni.data.speech_corpus import build_speech
from muomni.data.tasks import TASKS


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tasks of little data."""
    monkeypatch.setattr(image_shards, "PER_TASK", 8)
    monkeypatch.setattr(mel_shards, "PER_TASK", 3)
    monkeypatch.setattr(speech_corpus, "CHUNK", 3)
    monkeypatch.setattr(own_conversations, "CHUNK", 5)
    monkeypatch.setattr(own_conversations, "WORTH_A_WORKER", 30)  # of 60: two by two processors


def build(root: Path, workers: int) -> dict[str, str]:
    """Every stage that maps over items; the hash of each one's folder."""
    for name in ("images", "speech"):
        (root / name).mkdir(parents=True)
    build_image_corpus(images_config(), 5, root / "images", where="images")
    cfg = speech_config(sentences=18, espeak_fraction=0.3, workers=workers)
    build_speech(cfg, root / "images/concepts.jsonl", "unread", 0, root / "speech")
    write_image_shards(images_config(), 5, root / "images", root / "pictures", workers)
    if workers != 2:  # loading PyTorch in every process takes longer than the work
        write_mel_shards(root / "speech", MEL, root / "mels", workers)
    own = root.parent / "talks"
    if not own.exists():
        write_own(own, 60, 9)
    none = {split: dict.fromkeys(TASKS, 0) for split in SPLITS}
    talks = conversations_config(source="jsonl", path=str(own), max_bad_fraction=0.5, **none)
    write_conversations(talks, 0, root / "pictures", root / "speech", "unread", root / "conversations", FITTING)
    return {path.name: sha256_folder(path) for path in sorted(root.iterdir())}


def test_a_worker_killed_half_way_changes_no_byte(
    tmp_path: Path, small_tasks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("hibari")
    local = [build(tmp_path / f"local-{workers}", workers) for workers in (1, 2, 3)]
    assert local[0] == local[2] == local[1] | {"mels": local[0]["mels"]} and len(local[0]) == 5
    with cluster(tmp_path / "dask", 0) as made:
        killed = []

        class OneDies(DaskExecutor):
            """Starts two workers, and kills one with SIGKILL after the second result: it has more to do."""

            def map(self, *args: Any, **more: Any) -> Iterator[Any]:
                first, _ = made.worker(), made.worker()
                self.client.wait_for_workers(2, timeout=60)
                for number, result in enumerate(super().map(*args, **more)):
                    if number == 1:
                        os.kill(first.pid, signal.SIGKILL)
                        killed.append(first.wait(20))
                    yield result

        for module in (processes, speech_corpus, own_conversations):  # the shards are made through `in_processes`
            monkeypatch.setattr(module, "executor", lambda workers: OneDies(made.address))
        monkeypatch.setenv("MUOMNI_DASK", made.address)
        assert build(tmp_path / "cluster", 7) == local[0]
        assert killed == [-signal.SIGKILL] * 4
