"""Stages C and D's codec from a stream: what a batch holds, resumed with the same bits, from a store as from a disk."""

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from remote_folders import s3_server, upload
from small_models import CODEC, GRIFFIN_LIM, MEL, OMNI, VISION
from stage_tasks import CPU, LOOP

from muomni.data.picture_stream import KeptPictures, PictureStream, first_pictures
from muomni.data.pictures import load_pictures
from muomni.data.recording_stream import first_recordings
from muomni.data.shards import ShardWriter, write_index
from muomni.errors import UserError
from muomni.omni import Omni
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer
from muomni.train import parallel, state
from muomni.train.c_vision_encoder import VisionStageConfig, VisionTask
from muomni.train.d_codec import CodecStageConfig, CodecTask
from muomni.train.loop import fit

CONFIG = LOOP | {"steps": 12, "save_every": 3, "eval_every": 6}
Make = Callable[[str | Path], Any]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mels of two speakers, one of them rare, and pictures whose captions are mostly all different."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    made: dict[str, dict[str, Any]] = {"mels": {}, "images": {}}
    for split, count in (("train", 22), ("valid", 5)):
        with ShardWriter(folder / "mels", split, 4) as mels, ShardWriter(folder / "images", split, 4) as images:
            for n in range(count):
                about = {"text": "a dog", "speaker": "rare" if n % 5 == 3 else "a", "key": f"k{n}", "kind": "s"}
                mel = rng.normal(size=(20 + 3 * n, 128)).astype(np.float16)
                mels.write(f"{split}-{n}", {"npy": mel, "json": about})
                colour = tuple(int(c) for c in rng.integers(0, 255, 3))
                buffer = io.BytesIO()
                Image.new("RGB", (32, 32), colour).save(buffer, "PNG")
                thing = {"name": ("dog", "cat", "fox")[n % 3], "box": [0.2, 0.2, 0.8, 0.8]}
                said = {"caption": f"{thing['name']} {n // 2}", "objects": [thing], "kind": "single"}
                said["background"] = ("pink", None)[n % 2]
                images.write(f"{split}-{n}", {"png": buffer.getvalue(), "json": said})
        made["mels"][split], made["images"][split] = mels.shards, images.shards
    for kind, shards in made.items():
        write_index(folder / kind, shards, [])
    return folder


def codec(shards: str | Path, speaker: str = "", over_mb: float = 0.0) -> CodecTask:
    cfg = CodecStageConfig(
        **CONFIG, speaker=speaker, segment=8, commitment=0.25, valid_recordings=3, stream_over_mb=over_mb
    )
    torch.manual_seed(0)
    return CodecTask(cfg, CODEC, MEL, GRIFFIN_LIM, shards, 0)


def vision(shards: str | Path, tokenizer: Tokenizer, over_mb: float = 0.0) -> VisionTask:
    weights = {"region_weight": 1.0, "patch_weight": 0.5, "stream_over_mb": over_mb}
    cfg = VisionStageConfig(**CONFIG, embedding=16, shift=2, colour=0.1, valid_pictures=4, **weights)
    torch.manual_seed(0)
    return VisionTask(cfg, VISION, Thinker(OMNI.thinker), tokenizer, shards, 0)


def trained(task: Any, folder: Path, kill_at: int | None = None) -> dict[str, torch.Tensor]:
    """Weights after a training; it stops for once before it makes the batch of a step."""
    whole = task.batch

    def batch(step: int, *more: Any) -> Any:
        if step == kill_at:
            raise KeyboardInterrupt
        return whole(step, *more)

    task.batch = batch
    fit(task, task.cfg, seed=0, device=CPU, state_dir=folder, fingerprint="f", samples=False)
    return state.module_tensors(task.modules)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize("kind", ["mels", "images"])
def test_resumed_and_from_a_store_it_ends_with_the_same_bits(
    data: Path, tmp_path: Path, small: tuple[Omni, Tokenizer], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    make: Make = codec if kind == "mels" else lambda shards: vision(shards, small[1])
    whole = trained(make(data / kind), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(make(data / kind), tmp_path / "part", kill_at=8)
    loaded = state.load_state(tmp_path / "part")
    assert loaded is not None and loaded[1]["step"] == 6
    assert same(trained(make(data / kind), tmp_path / "part"), whole)
    with s3_server(monkeypatch) as client:
        upload(client, data / kind, "corpora", kind)
        assert same(trained(make(f"s3://corpora/{kind}"), tmp_path / "far"), whole)


@pytest.mark.parametrize("kind", ["mels", "images"])
def test_two_processes_have_the_batches_of_one(
    data: Path, small: tuple[Omni, Tokenizer], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    make: Make = codec if kind == "mels" else lambda shards: vision(shards, small[1])

    def batch(task: Any, step: int, micro: int) -> list[torch.Tensor]:
        made = task.batch(step, micro, torch.Generator().manual_seed(0))
        return list(made.values() if isinstance(made, dict) else made)

    task = make(data / kind)
    alone = [batch(task, step, 0) for step in range(8)]
    for rank in range(2):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        assert parallel.world() == (rank, 2)
        mine = make(data / kind)
        for step, wanted in enumerate(alone[rank::2]):
            assert all(torch.equal(a, b) for a, b in zip(batch(mine, step, rank), wanted, strict=True))


def test_pictures_come_once_an_epoch_whatever_the_seed(data: Path) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    stream, kept = PictureStream(data / "images", 4, seed), KeptPictures(data / "images", 4, seed)
    keys = [picture.key for number in range(11) for picture in stream.at(number)]
    wanted = sorted(picture.key for picture in load_pictures(data / "images", "train"))
    assert len(keys) == 44 and sorted(keys[:22]) == sorted(keys[22:]) == wanted and keys[:22] != keys[22:]
    assert stream.words() == kept.words() == (["cat", "dog", "fox"], ["pink"])
    assert [p.key for p in first_pictures(data / "images", "valid", 3)] == [f"valid-{n}" for n in range(3)]


def test_a_stream_of_pictures_learns_what_those_in_memory_would(data: Path, small: tuple[Omni, Tokenizer]) -> None:
    streamed, kept = vision(data / "images", small[1]), vision(data / "images", small[1], 4000.0)
    assert isinstance(streamed.train, PictureStream) and isinstance(kept.train, KeptPictures)
    assert streamed.names == kept.names and torch.equal(streamed.label_states, kept.label_states)
    rows = [picture for number in range(6) for picture in streamed.train.at(number)]
    numbers, states = streamed.said([picture.caption for picture in rows])
    others, wanted = kept.said([picture.caption for picture in rows])
    assert (states - wanted).abs().max() < 1e-5
    assert torch.equal(numbers[:, None] == numbers, others[:, None] == others)
    assert streamed.evaluate().keys() == kept.evaluate().keys()


def test_a_rare_speaker_fills_the_codecs_batches(data: Path) -> None:
    task = codec(data / "mels", "rare")
    theirs = {-(-len(r.mel) // 2) for r in first_recordings(data / "mels", "train", 99, ["rare"])}
    assert len(theirs) == 4 and {len(mel) for number in range(6) for mel in task.streamed(number)} == theirs
    for number in range(12):
        mels, mask = task.batch(number, 0, torch.Generator().manual_seed(number))
        assert mels.shape == (4, 8, 128) and bool(mask.all())
    with pytest.raises(UserError, match="none of 22 recordings"):
        codec(data / "mels", "nobody")
