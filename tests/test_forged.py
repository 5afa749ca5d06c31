"""Forged and damaged checkpoints: whatever is wrong with one is said in a line, before memory is taken for it."""

import random
import resource
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from forged import (
    Change,
    agree,
    card,
    change,
    config,
    folder_instead,
    header,
    linked,
    pipe_instead,
    refused,
    shape,
    sparse,
    state,
    tensor,
    text,
)
from safetensors.torch import save

from muomni.checkpoint import load_checkpoint, save_checkpoint
from muomni.drawing import NO_NUMBERS
from muomni.errors import UserError
from muomni.evaluate.parts import Part
from muomni.generate import Session, last
from muomni.omni import Omni, load_omni
from muomni.reading_aloud import say
from muomni.sampling import Sampling
from muomni.tokenizer import Tokenizer

ROOT = Path(__file__).parent.parent
Small = tuple[Omni, Tokenizer]


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint."""
    return Path(shutil.copytree(checkpoint, tmp_path / "omni"))


def renamed(folder: Path) -> None:
    header(folder, lambda found: found.update(x=found.pop("places.weight")))


def weights(content: bytes) -> Change:
    return lambda folder: (folder / "model.safetensors").write_bytes(content)


LARGEST = {"vocab_size": 65536, "d_model": 4096, "n_layers": 64, "n_heads": 64, "n_kv_heads": 64, "d_ff": 16384}
Forgery = tuple[str, Change]
AGREED: list[Forgery] = [  # the card has the hashes of these
    ("less than or equal to", config(lambda c: c["thinker"].update(d_model=10**9))),
    ("less than or equal to", config(lambda c: c["talker"].update(frames=10**9))),
    ("do not fit", config(lambda c: c["thinker"].update(LARGEST))),  # 100 GB
    ("builds more than", config(lambda c: c["thinker"].update(LARGEST, n_experts=64))),  # 3 TB
    ("do not fit", config(lambda c: c["vision_encoder"].update(image_size=1024, patch_size=2))),
    ("do not fit", config(lambda c: c["codec"].update(codes=4096) or c["talker"].update(codes=4096))),
    ("talker.codes is 64, but codec.codes", config(lambda c: c["talker"].update(codes=64))),
    ("mel.n_mels is 64", config(lambda c: c["mel"].update(n_mels=64))),
    ("fusion.image_grid", config(lambda c: c["fusion"].update(image_grid=32))),
    ("thinker.d_model", config(lambda c: c["thinker"].update(d_model="32"))),
    ("thinker.d_model", config(lambda c: c["thinker"].update(d_model=32.5))),
    ("thinker.tie_embeddings", config(lambda c: c["thinker"].update(tie_embeddings=1))),
    ("talker.voices", config(lambda c: c["talker"].update(voices="hibari"))),
    ("thinker: ", config(lambda c: c.update(thinker=[1, 2]))),
    ("config.json: more: unknown key", config(lambda c: c.update(more=1))),
    ("griffin_lim.seed", config(lambda c: c["griffin_lim"].update(seed=10**30))),
    ("f_min", config(lambda c: c["mel"].update(f_min=1000.0, f_max=1000.0))),
    ("NaN is no JSON number", config(lambda c: c["thinker"].update(rope_theta=float("nan")))),
    ("Infinity is no JSON number", config(lambda c: c["thinker"].update(rope_theta=float("inf")))),
    ("too large", text("config.json", '{"thinker": 1e999}')),
    ("config.json: not valid JSON", text("config.json", '{"thinker": ' + "9" * 5000 + "}")),
    ("nested too deeply", text("config.json", '{"a":' * 50_000 + "1" + "}" * 50_000)),
    ("more than 32", text("config.json", '{"a":' * 100 + "1" + "}" * 100)),
    ("key 'thinker' is there twice", text("config.json", '{"thinker": 1, "thinker": 2}')),
    ("config.json: not valid JSON", text("config.json", "")),
    ("config.json: not valid JSON", text("config.json", '{"a": "\ud800"}')),
    ("expected a JSON object", text("config.json", "[]")),
    ("at most 1,048,576 are read", sparse("config.json", 40 << 30)),
    ("not a tokenizer model", sparse("tokenizer.model", 40 << 20)),
    ("not a tokenizer model (more than", sparse("tokenizer.model", 100 << 20)),
    ("not a tokenizer model", text("tokenizer.model", "")),
    (
        "NaN or infinity in places.weight",
        tensor(lambda t: t.index_fill(0, torch.tensor(3), torch.nan)),
    ),
    ("NaN or infinity in places.weight", tensor(lambda t: t - torch.inf)),
    ("places.weight float64 instead of float32", tensor(lambda t: t.double())),
    ("places.weight int32 instead of float32", shape(dtype="I32")),
    ("places.weight [32, 5] instead of [5, 32]", shape(shape=[32, 5])),
    ("missing tensors: places.weight; unexpected tensors: x", renamed),
    ("not readable as safetensors", shape(shape=[10**9, 10**9])),
    ("not readable as safetensors", shape(shape=[2**64 - 1, 2])),
    ("not readable as safetensors", shape(shape=[-5, -32])),
    ("not readable as safetensors", shape(dtype="F128")),
    ("not readable as safetensors", shape(data_offsets=[0, 10**12])),
    ("not readable as safetensors", shape(data_offsets=[8, 648])),
    ("not readable as safetensors", text("model.safetensors", "")),
    ("not readable as safetensors", weights(struct.pack("<Q", 2**63) + b"{}")),
    ("not readable as safetensors", weights(struct.pack("<Q", 9 << 20) + b" " * (9 << 20))),
    ("not readable as safetensors", sparse("model.safetensors", 1 << 30)),
    ("at most 17,179,869,184 are read", sparse("model.safetensors", 20 << 30)),
]
AS_THEY_ARE: list[Forgery] = [
    ("model.safetensors: is not the file that card.json was written for", tensor(lambda t: t + 1e-3)),
    ("config.json: is not the file", config(lambda c: c["thinker"].update(rope_theta=500.0))),
    ("config.json: is not the file", config(lambda c: c["talker"].update(voices=["evil", "voices"]))),
    ("card.json: weights_sha256: missing", card(lambda c: c.pop("weights_sha256"))),
    ("card.json: weights_sha256: String should match", card(lambda c: c.update(weights_sha256="../x"))),
    ("card.json: files_sha256: missing", card(lambda c: c.pop("files_sha256"))),
    ("files_sha256 has no config.json", card(lambda c: c["files_sha256"].pop("config.json"))),
    ("tokenizer.model: is not the file", card(lambda c: c["files_sha256"].pop("tokenizer.model"))),
    ("is no name of a file in it", card(lambda c: c["files_sha256"].update({"../outside": "0" * 64}))),
    ("is no name of a file in it", card(lambda c: c["files_sha256"].update({"/etc/passwd": "0" * 64}))),
    ("more: no such file", card(lambda c: c["files_sha256"].update({"more": "0" * 64}))),
    ("card.json: parameters", card(lambda c: c.update(parameters="many"))),
    ("card.json: metrics.loss", card(lambda c: c.update(metrics={"loss": "low"}))),
    ("card.json: params", card(lambda c: c.update(params=[]))),
    ("card.json: not valid JSON (key 'run' is there twice)", text("card.json", '{"run": "a", "run": "b"}')),
    ("at most 1,048,576 are read", sparse("card.json", 10 << 20)),
    ("is a folder", folder_instead("model.safetensors")),
    ("is a folder", folder_instead("config.json")),
    ("is a folder", folder_instead("card.json")),
    ("is a folder", folder_instead("tokenizer.model")),
    ("no plain file", pipe_instead("config.json")),  # to open it would wait for ever
    ("no plain file", pipe_instead("model.safetensors")),
    ("no plain file", pipe_instead("tokenizer.model")),
    *[
        ("leads out of its folder", linked(name, target))
        for name in ("model.safetensors", "config.json", "card.json", "tokenizer.model")
        for target in ("../outside", "/dev/zero", "/etc/passwd")
    ],
    ("config.json", linked("config.json", "config.json")),
    ("config.json is missing", linked("config.json", "gone")),
]


@pytest.mark.parametrize("number", range(len(AGREED)))
def test_a_forged_checkpoint_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str], number: int) -> None:
    said, how = AGREED[number]
    start, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    how(folder)
    if (folder / "model.safetensors").stat().st_size < 1 << 30 and (folder / "config.json").stat().st_size < 1 << 30:
        agree(folder)  # what is huge is refused before it is read
    assert said in refused(folder, capsys)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 400_000  # KB
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("number", range(len(AS_THEY_ARE)))
def test_a_changed_checkpoint_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str], number: int) -> None:
    said, how = AS_THEY_ARE[number]
    how(folder)
    assert said in refused(folder, capsys)


def test_links_within_the_folder_and_to_it_are_fine(folder: Path) -> None:
    (folder / "config.json").rename(folder / "real.json")
    (folder / "config.json").symlink_to("real.json")
    (folder.parent / "link").symlink_to("omni")
    assert load_checkpoint(folder.parent / "link").config == load_checkpoint(folder).config


def test_the_command_itself_refuses_in_little_memory(folder: Path) -> None:
    change(folder / "config.json", lambda c: c["thinker"].update(LARGEST))
    agree(folder)
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))\n"
        "from muomni.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "chat", "--text", "Hi", "--device", "cpu", "--checkpoint", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == "" and "do not fit the configuration" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_parts_checkpoint_is_compared_before_it_is_built(small: Small, tmp_path: Path) -> None:
    model = small[0]
    sections = model.cfg.model_dump(mode="json")
    cases = {
        "thinker": (model.thinker, {"thinker": sections["thinker"] | LARGEST}),
        "codec": (model.codec, {"codec": sections["codec"] | {"codes": 4096, "code_width": 512}}),
    }
    for name, (module, sizes) in cases.items():
        found = load_omni_card()
        save_checkpoint(tmp_path / name, module.state_dict(), sizes, found | {"component": name})
        with pytest.raises(UserError, match="do not fit"):
            getattr(Part(tmp_path / name), name)()


def load_omni_card() -> dict[str, Any]:
    """A card without its hashes."""
    empty: dict[str, Any] = {"data": {}, "params": {}, "metrics": {}}
    return empty | {"component": "x", "parameters": 1, "revision": "", "seconds": 0.0, "run": ""}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "card.json", "tokenizer.model"])
def test_no_damage_to_a_file_is_anything_but_refused_or_a_model(folder: Path, name: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    good = (folder / name).read_bytes()
    part = 8 + struct.unpack("<Q", good[:8])[0] if name == "model.safetensors" else len(good)  # the header
    for _ in range(40):
        content = bytearray(good)
        for _ in range(rng.choice((1, 1, 2, 8))):
            at, length = rng.randrange(part), rng.randrange(1, 20)
            match rng.randrange(4):
                case 0:
                    del content[at : at + length]
                case 1:
                    content[at:at] = rng.randbytes(length)
                case _:
                    content[min(at, len(content) - 1)] = rng.randrange(256)
        (folder / name).write_bytes(content)
        if name != "card.json":
            agree(folder)
        try:
            model, tokenizer, _ = load_omni(folder)
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert tokenizer.vocab_size == model.cfg.thinker.vocab_size


@pytest.mark.parametrize("part", ["thinker.head", "thinker.stack.norm", "talker"])
def test_weights_that_are_finite_and_make_nan_are_one_line(small: Small, folder: Path, part: str) -> None:
    state(folder, lambda s: [tensor.fill_(1e38) for name, tensor in s.items() if name.startswith(part)])
    agree(folder)
    model, tokenizer, _ = load_omni(folder)
    with pytest.raises(UserError, match=NO_NUMBERS):
        if part == "talker":
            list(say(model, tokenizer, "Good morning."))
        else:
            last(Session(model, tokenizer).ask("Hi", sampling=Sampling(temperature=1.0), max_tokens=3))


def test_large_tables_of_nothing_are_refused(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = {f"x{number}": torch.zeros(0) for number in range(60_000)}
    (folder / "model.safetensors").write_bytes(save(many))
    agree(folder)
    assert "do not fit the configuration" in refused(folder, capsys)
