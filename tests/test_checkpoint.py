"""Checkpoints: what is written is read back, and whatever does not fit is said in one line."""

import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from muomni import checkpoint
from muomni.checkpoint import Checkpoint, load_checked, load_checkpoint, make_card, save_checkpoint
from muomni.errors import UserError
from muomni.fitting import assemble, load_into


class Tied(nn.Module):
    """Two names for one matrix, a buffer that is saved and one that is not."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, width)
        self.head = nn.Linear(width, 6, bias=False)
        self.head.weight = self.embedding.weight
        self.norm = nn.BatchNorm1d(width)
        self.register_buffer("table", torch.zeros(2), persistent=False)


class Whole(nn.Module):
    """Holds a component, as the assembled model does."""

    def __init__(self) -> None:
        super().__init__()
        self.thinker = Tied()
        self.projector = nn.Linear(2, 4)


def save(folder: Path, module: nn.Module, **changes: object) -> dict:
    card = make_card("thinker", module, data={"data/x": "ab"}, params={"seed": 1}, metrics={"loss": 2.5}, seconds=1.26)
    save_checkpoint(folder, module.state_dict(), {"thinker": {"width": 4}}, card | changes)
    return card


def test_round_trip_is_exact_and_goes_into_a_part(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Tied()
    save(tmp_path / "thinker", module)
    found = load_checkpoint(tmp_path / "thinker")
    assert found.config == {"thinker": {"width": 4}}
    assert found.card["parameters"] == 6 * 4 + 2 * 4  # the shared matrix counts once
    assert found.card["data"] == {"data/x": "ab"} and found.card["seconds"] == 1.3
    assert found.card["weights_sha256"] == checkpoint.weights_sha256(tmp_path / "thinker")
    whole = Whole()
    load_into(whole.thinker, found.state, where="thinker")  # stage E reads stage A's checkpoint
    for name, tensor in module.state_dict().items():
        assert torch.equal(whole.thinker.state_dict()[name], tensor)
    save(tmp_path / "omni", whole)
    again = Tied()
    load_into(again, load_checkpoint(tmp_path / "omni").state, prefix="thinker.")
    assert torch.equal(again.embedding.weight, module.embedding.weight)


def test_saving_replaces_the_folder_and_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"pieces")
    save(tmp_path / "thinker", nn.Linear(2, 2))
    module = nn.Linear(3, 3)
    save_checkpoint(
        tmp_path / "thinker",
        module.state_dict(),
        {},
        make_card("thinker", module, data={}, params={}, metrics={}, seconds=0.0),
        files={"tokenizer.model": tmp_path / "tokenizer.model"},
    )
    assert load_checkpoint(tmp_path / "thinker").state["weight"].shape == (3, 3)
    assert (tmp_path / "thinker" / "tokenizer.model").read_bytes() == b"pieces"
    assert {p.name for p in tmp_path.iterdir()} == {"thinker", "tokenizer.model"}


def test_weights_can_be_read_by_whoever_can_read_the_card(tmp_path: Path) -> None:
    save(tmp_path / "c", Tied())
    modes = {path.name: oct(path.stat().st_mode) for path in (tmp_path / "c").iterdir()}
    assert len(set(modes.values())) == 1, modes


def test_a_crash_between_the_renames_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "thinker", nn.Linear(2, 2))
    real, calls = checkpoint.os.replace, []

    def dies_at_the_second(a: Path, b: Path) -> None:
        calls.append(a)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "replace", dies_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path / "thinker", nn.Linear(3, 3))
    assert load_checkpoint(tmp_path / "thinker").state["weight"].shape == (2, 2)


def test_missing_folder_and_files_name_the_stage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"thinker: no checkpoint.*dvc repro a-thinker"):
        load_checkpoint(tmp_path / "thinker")
    save(tmp_path / "audio_encoder", nn.Linear(2, 2))
    (tmp_path / "audio_encoder" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model.safetensors is missing; run `dvc repro b-audio-encoder`"):
        load_checkpoint(tmp_path / "audio_encoder")
    with pytest.raises(UserError, match="give the folder"):
        load_checkpoint(tmp_path / "elsewhere")


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, None])
def test_corrupt_weights_are_one_line(tmp_path: Path, content: bytes | None) -> None:
    save(tmp_path / "codec", nn.Linear(20, 20))
    path = tmp_path / "codec" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    with pytest.raises(UserError, match="not readable as safetensors") as caught:
        load_checkpoint(tmp_path / "codec")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe"])
@pytest.mark.parametrize("name", ["config.json", "card.json"])
def test_bad_json_names_the_file(tmp_path: Path, name: str, content: bytes) -> None:
    save(tmp_path / "codec", nn.Linear(2, 2))
    (tmp_path / "codec" / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        load_checkpoint(tmp_path / "codec")


def test_tensors_that_do_not_fit_are_named() -> None:
    module = nn.Linear(3, 2)
    before = module.weight.clone()
    state = {"weight": torch.zeros(2, 5), "scale": torch.zeros(1)}
    with pytest.raises(UserError) as caught:
        load_into(module, state, where="checkpoints/x")
    message = str(caught.value)
    assert "checkpoints/x" in message and "missing tensors: bias" in message
    assert "unexpected tensors: scale" in message and "weight [2, 5] instead of [2, 3]" in message
    assert torch.equal(module.weight, before)
    with pytest.raises(UserError, match="missing tensors"):
        load_into(module, {"other.weight": torch.zeros(2, 3)}, prefix="mine.")


def test_the_revision_is_dirty_by_code_and_not_by_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert checkpoint.revision() == "unknown"
    for name in ("params.yaml", "code.py"):
        (tmp_path / name).write_text("a")
    git = ["git", "-c", "user.name=A Person", "-c", "user.email=person@localhost"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    clean = checkpoint.revision()
    assert len(clean) == 40
    (tmp_path / "params.yaml").write_text("b")
    (tmp_path / "new.txt").write_text("b")
    assert checkpoint.revision() == clean
    (tmp_path / "code.py").write_text("b")
    assert checkpoint.revision() == f"{clean}-dirty"


def test_the_card_has_the_hash_of_every_file_and_only_finite_metrics(tmp_path: Path) -> None:
    (tmp_path / "words").write_bytes(b"pieces")
    module = nn.Linear(2, 2)
    metrics = {"loss": 1.5, "nothing_measured": float("nan"), "best": float("inf")}
    card = make_card("thinker", module, data={}, params={}, metrics=metrics, seconds=0)
    save_checkpoint(tmp_path / "x", module.state_dict(), {"a": 1}, card, {"words": tmp_path / "words"})
    found = load_checkpoint(tmp_path / "x").card  # a training's result can always be read again
    assert found["metrics"] == {"loss": 1.5} and found["files_sha256"].keys() == {"config.json", "words"}
    (tmp_path / "x/words").write_bytes(b"others")
    with pytest.raises(UserError, match=r"words: is not the file that card\.json was written for"):
        load_checkpoint(tmp_path / "x")


def test_a_check_sees_shapes_before_any_file_is_compared(tmp_path: Path) -> None:
    save(tmp_path / "codec", nn.Linear(3, 2))
    (tmp_path / "codec/config.json").write_text("{}")

    def check(found: Checkpoint) -> None:
        assert found.state["weight"].is_meta and found.state["weight"].shape == (2, 3) and found.config == {}
        raise UserError("does not fit")

    with pytest.raises(UserError, match="does not fit"):
        load_checked(tmp_path / "codec", check)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_numbers_that_are_none_change_nothing(bad: float) -> None:
    module = nn.Linear(3, 2)
    before = module.weight.clone()
    state = {name: torch.full_like(tensor, 3e38) for name, tensor in module.state_dict().items()}
    state["bias"][1] = bad
    with pytest.raises(UserError, match="NaN or infinity in bias"):
        load_into(module, state)
    assert torch.equal(module.weight, before)
    state["bias"][1] = 3e38  # their sum is infinite, and they are not
    load_into(module, state)
    assert module.bias[1] == 3e38


def test_what_is_compared_first_draws_no_random_numbers() -> None:
    state = nn.Linear(3, 2).state_dict()
    torch.manual_seed(5)
    module = assemble(lambda: nn.Linear(3, 2), state)
    after = torch.rand(1)
    torch.manual_seed(5)
    nn.Linear(3, 2)
    assert torch.equal(after, torch.rand(1)) and torch.equal(module.weight, state["weight"])


def test_a_module_of_far_too_many_parts_is_not_built_to_the_end() -> None:
    built = []

    def build() -> nn.Module:
        return nn.ModuleList(built.append(1) or nn.Linear(1, 1) for _ in range(100_000))

    with pytest.raises(UserError, match="builds more than 104 parameters, there are 2 tensors"):
        assemble(build, nn.Linear(1, 1).state_dict())
    assert len(built) < 100
    nn.Linear(1, 1)  # counted no longer
