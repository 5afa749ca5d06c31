"""The course's pictures: drawn from the smallest model that has every part, its weights random."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_models import AUDIO, OMNI, small_omni, small_tokenizer
from stage_tasks import aligned, make_data
from torch import nn

from muomni.audio_encoder import CTCHead
from muomni.checkpoint import make_card, save_checkpoint
from muomni.errors import UserError
from muomni.layers import Attention
from muomni.tokenizer import MODEL_FILE
from muomni.train.c_vision_encoder import ContrastiveHeads
from muomni.train.speaking import ALIGNMENTS
from pipelines.course.attention import watched
from pipelines.course.curves import SHOWN
from pipelines.course_figures import DRAWN, draw, main

LARGEST = 150_000  # bytes of a picture


def save(folder: Path, module: nn.Module, files: dict[str, Path] | None = None) -> None:
    """A checkpoint as a stage writes it."""
    config = OMNI.model_dump(mode="json")
    card = make_card(
        folder.name, module, data={}, params={"seed": 0}, metrics={"seconds": 1.0}, seconds=1.0, run="0123456789abcdef"
    )
    save_checkpoint(folder, module.state_dict(), config, card, files or {})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder: data, checkpoints and curves."""
    root = tmp_path_factory.mktemp("run")
    (root / "data").mkdir()
    shards = make_data(root / "data/shards")
    tokenizer = small_tokenizer(root)
    model = small_omni()
    save(root / "checkpoints/omni", model, {MODEL_FILE: root / MODEL_FILE})
    save(root / "checkpoints/thinker", model.thinker)
    torch.manual_seed(0)
    heads = ContrastiveHeads(OMNI.vision_encoder.d_model, OMNI.thinker.d_model, 16)
    save(root / "checkpoints/vision_encoder", nn.ModuleDict({"vision_encoder": model.vision_encoder, "heads": heads}))
    save(
        root / "checkpoints/audio_encoder", nn.ModuleDict({"audio_encoder": model.audio_encoder, "ctc": CTCHead(AUDIO)})
    )
    save(root / "checkpoints/talker", model.talker, {ALIGNMENTS: aligned(shards, tokenizer)})
    for stage, (steps, evaluations) in SHOWN.items():
        folder = root / "metrics/train" / stage
        folder.mkdir(parents=True)
        for name, keys in (("train", steps), ("valid", evaluations)):
            rows = [{"step": step, **dict.fromkeys(keys, 1 / step)} for step in (10, 20)]
            (folder / f"{name}.json").write_text(json.dumps(rows))
    return root


def test_every_picture_is_drawn_and_small(root: Path, tmp_path: Path) -> None:
    """Also: the numbers are JSON without NaN, and a second time gives the same bytes."""
    main(["--root", str(root), "--out", str(tmp_path / "a"), "--numbers", str(tmp_path / "numbers.json")])
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert set(numbers) == {"about", *DRAWN}
    made = sorted((tmp_path / "a").iterdir())
    assert len(made) == len(DRAWN)
    for path in made:
        assert path.stat().st_size < LARGEST, path.name
        assert Image.open(path).size[0] == 880
    again = draw(root, tmp_path / "b", ["slots", "codebooks", "curves_d_codec"])
    assert again["slots"] == numbers["slots"]
    for path in (tmp_path / "b").iterdir():
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes(), path.name


def test_what_is_missing_is_one_line(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no picture 'nothing'"):
        draw(root, tmp_path, ["nothing"])
    with pytest.raises(UserError, match="checkpoints/omni"):
        draw(tmp_path, tmp_path)
    (root / "metrics/train/d-codec/valid.json").unlink()
    with pytest.raises(UserError, match="dvc repro d-codec"):
        draw(root, tmp_path, ["curves_d_codec"])


def test_weights_are_those_of_the_attention() -> None:
    """What is recomputed, applied to the values, is what the attention gives."""
    model = small_omni().thinker
    x = torch.randn(2, 9, OMNI.thinker.d_model, generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []
    attention = model.stack.blocks[0].attention
    assert isinstance(attention, Attention)
    given: list[torch.Tensor] = []

    def note(module: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        given.append(args[0])
        seen.append(out)

    handle = attention.register_forward_hook(note)
    with torch.no_grad(), watched(model.stack) as found:
        model(x)
        handle.remove()
        assert len(found) == OMNI.thinker.n_layers
        value = attention.value(given[0]).view(2, 9, attention.kv_heads, -1).transpose(1, 2)
        value = value.repeat_interleave(attention.heads // attention.kv_heads, dim=1)
        made = attention.out((found[0] @ value).transpose(1, 2).reshape(2, 9, -1))
    torch.testing.assert_close(made, seen[0], rtol=1e-4, atol=1e-5)
