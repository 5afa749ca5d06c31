"""``muomni verify``: it finds every kind of change, and no more than there is."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forged import agree, change
from registered_models import train
from safetensors.torch import load_file, save_file

from muomni.checkpoint import make_card, save_checkpoint
from muomni.cli import main
from muomni.omni import Omni
from muomni.tokenizer import Tokenizer
from muomni.verify import Check, verify

Small = tuple[Omni, Tokenizer]


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a checkpoint in an empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    shutil.copytree(checkpoint, tmp_path / "omni")
    return Path("omni")


def differing(checks: list[Check]) -> dict[str, str]:
    return {check.what: check.detail for check in checks if check.result == "differs"}


def weights(folder: Path, how: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(folder / "model.safetensors")
    how(state)
    save_file(state, folder / "model.safetensors")


def test_what_every_stage_writes_is_found_good(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(tmp_path, small[1], 0)
    assert main(["verify"]) == 0  # `checkpoints` by default
    for name in ("omni", "thinker", "audio_encoder", "vision_encoder", "codec", "talker"):
        found = {check.what: check.result for check in verify(Path("checkpoints") / name)}
        assert not {"differs"} & set(found.values())
        for what in ("model.safetensors", "config.json", "tensors", "parameters", "numbers"):
            assert found[what] == "ok"
        assert found["data"] == "not here" and found.get("tokenizer") == ("ok" if name == "omni" else None)


def test_a_vocoder_without_weights_is_a_checkpoint_too(small: Small, tmp_path: Path) -> None:
    section = {"vocoder": small[0].cfg.vocoder.model_dump(mode="json")}
    card = make_card("vocoder", torch.nn.Module(), data={}, params=section, metrics={}, seconds=0)
    save_checkpoint(tmp_path / "vocoder", {}, section, card)
    assert not differing(verify(tmp_path / "vocoder"))


def one_bit(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(content))


CHANGES: dict[str, tuple[Callable[[Path], object], dict[str, str]]] = {
    "a bit of the weights": (one_bit, {"model.safetensors": "the card has"}),
    "heads, which change no shape": (
        lambda f: change(f / "config.json", lambda c: c["thinker"].update(n_heads=8, n_kv_heads=4)),
        {"config.json": "the card has"},
    ),
    "tokenizer": (
        lambda f: (f / "tokenizer.model").write_bytes(b"x"),
        {"tokenizer.model": "", "tokenizer": "not a tokenizer"},
    ),
    "no tokenizer": (
        lambda f: (f / "tokenizer.model").unlink(),
        {"tokenizer.model": "no such file", "tokenizer": "no such file"},
    ),
    "another file": (lambda f: (f / "more.bin").write_bytes(b"x"), {"other files": "more.bin"}),
    "a folder": (lambda f: (f / "more").mkdir(), {"other files": "more"}),
    "parameters": (lambda f: change(f / "card.json", lambda c: c.update(parameters=7)), {"parameters": "has 7"}),
    "card without hashes": (
        lambda f: change(f / "card.json", lambda c: c.pop("weights_sha256")),
        {"readable": "weights_sha256: missing"},
    ),
    "component": (
        lambda f: change(f / "card.json", lambda c: c.update(component="thinker")),
        {"tensors": "unexpected tensors"},
    ),
    "no component": (lambda f: change(f / "card.json", lambda c: c.update(component="x")), {"tensors": "no component"}),
    "config and params": (
        lambda f: change(f / "card.json", lambda c: c["params"].update(thinker={"d_model": 1})),
        {"configuration": "thinker"},
    ),
    "the tokenizer of the data": (
        lambda f: change(f / "card.json", lambda c: c["data"].update({"data/tokenizer/tokenizer.model": "ab"})),
        {"tokenizer": "another hash of data/tokenizer/tokenizer.model"},
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_each_change_is_found_and_named(folder: Path, what: str) -> None:
    how, expected = CHANGES[what]
    how(folder)
    found = differing(verify(folder))
    assert found.keys() == expected.keys()
    assert all(said in found[name] for name, said in expected.items())


def put_nan(state: dict[str, torch.Tensor]) -> None:
    state["thinker.stack.norm.weight"][3] = torch.nan
    state["places.weight"][0, 0] = -torch.inf


FORGERIES: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str, list[str]]] = {
    "missing": (lambda s: s.pop("places.weight"), "tensors", ["missing tensors: places.weight"]),
    "extra": (lambda s: s.update(more=torch.zeros(2)), "tensors", ["unexpected tensors: more"]),
    "shape": (lambda s: s.update({"places.weight": torch.zeros(5, 33)}), "tensors", ["places.weight [5, 33]"]),
    "type": (
        lambda s: s.update({"places.weight": torch.zeros(5, 32).half()}),
        "tensors",
        ["float16 instead"],
    ),
    "numbers": (put_nan, "numbers", ["thinker.stack.norm.weight", "places.weight"]),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_weights_that_the_card_agrees_with_are_still_looked_at(folder: Path, what: str) -> None:
    how, check, said = FORGERIES[what]
    weights(folder, how)
    agree(folder)
    found = differing(verify(folder))
    assert found.keys() == {check} and all(part in found[check] for part in said)


def test_large_numbers_are_no_infinities(folder: Path) -> None:
    weights(folder, lambda state: state["thinker.head.weight"].fill_(3e38))  # their sum overflows
    agree(folder)
    assert not differing(verify(folder))


def test_data_are_compared_where_they_are_and_only_within_the_checkout(small: Small, tmp_path: Path) -> None:
    (tmp_path / "data/tokens").mkdir(parents=True)
    (tmp_path / "data/tokens/0.npy").write_bytes(b"one")
    (tmp_path / "secret").write_bytes(b"x")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        from pipelines.training import hashes

        made = hashes(["data/tokens"])
        names = ["data/gone", "../secret", str(tmp_path), "", "a\0b", "n" * 5000]
        elsewhere = dict.fromkeys(names, "ab")
        card = make_card("codec", small[0].codec, data=made | elsewhere, params={}, metrics={}, seconds=0)
        config = {"codec": small[0].cfg.codec.model_dump(mode="json")}
        save_checkpoint("codec", small[0].codec.state_dict(), config, card)
        found = {check.what: check.result for check in verify(Path("codec"), data=True)}
        assert found["data data/tokens"] == "ok" and found["data data/gone"] == "not here"
        assert found["data ../secret"] == found[f"data {tmp_path}"] == found["data "] == "differs"
        assert found["data a\0b"] == found["data " + "n" * 5000] == "not here"
        (tmp_path / "data/tokens/0.npy").write_bytes(b"two")
        assert "data data/tokens" in differing(verify(Path("codec"), data=True))
        assert "data data/tokens" not in differing(verify(Path("codec")))


def test_another_params_yaml_or_revision_is_a_note(folder: Path) -> None:
    change(folder / "card.json", lambda c: c["params"].update(seed=3, codec={"codes": 32}))
    change(folder / "card.json", lambda c: c.update(revision="0" * 40))
    agree(folder)

    def noted() -> dict[str, tuple[str, str]]:
        return {c.what: (c.result, c.detail) for c in verify(folder) if c.what in ("params", "revision")}

    assert noted()["params"][0] == noted()["revision"][0] == "not here"
    Path("params.yaml").write_text("seed: 3\ncodec: {codes: 32}\nmore: 1\n")
    assert noted()["params"][0] == "ok"
    Path("params.yaml").write_text("seed: 4\ncodec: {codes: 32, kernel: 1}\n")
    assert noted()["params"] == ("note", "params.yaml has another codec.kernel, seed")
    Path("params.yaml").write_text("[")
    assert noted()["params"][0] == "not here"
    git = ["git", "-c", "user.name=A Person", "-c", "user.email=person@localhost"]
    for words in (["init", "-q"], ["add", "params.yaml"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    assert noted()["revision"][0] == "note" and "made by 000000000000; here is" in noted()["revision"][1]
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    change(folder / "card.json", lambda c: c.update(revision=head))
    assert noted()["revision"][0] == "ok"
    change(folder / "card.json", lambda c: c.update(revision=f"{head}-dirty"))
    assert noted()["revision"][0] == "note" and "not committed" in noted()["revision"][1]


def test_the_command_says_it_line_by_line_and_by_its_exit_code(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "omni"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "omni" and all(line[2:10].strip() in ("ok", "not here", "note") for line in lines[1:])
    one_bit(folder)
    assert main(["verify", "omni", "--json"]) == 1
    found = {check["what"]: check for check in json.loads(capsys.readouterr().out)["omni"]}
    assert found["model.safetensors"]["result"] == "differs" and found["tensors"]["result"] == "ok"
    for arguments in (["nowhere"], ["omni/card.json"], ["."], ["omni", "--model", "models:/x@y"]):
        if arguments == ["."]:
            shutil.rmtree(folder)
        assert main(["verify", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1


def test_one_damaged_checkpoint_does_not_hide_the_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(folder, "other")
    Path("other/config.json").write_text("{")
    assert main(["verify", "."]) == 1
    out = capsys.readouterr().out
    assert "omni\n  ok" in out and "other\n  differs   readable: other/config.json: not valid JSON" in out


def test_names_from_a_card_cannot_steer_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steering = "data/\x1b[2Jx\u202e\ud800\n"
    change(folder / "card.json", lambda c: c["data"].update({steering: "ab"}))
    weights(folder, lambda state: state.update({"\x1b[31mred": torch.zeros(1)}))
    agree(folder)
    assert main(["verify", "omni", "--data"]) == 1
    out = capsys.readouterr().out
    assert "\\x1b[2Jx\\u202e\\ud800" in out and "\\x1b[31mred" in out and "\x1b" not in out
    assert main(["chat", "--text", "Hi", "--checkpoint", "omni"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_a_registered_model_is_checked_by_its_address(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--model", "models:/muomni@champion"]) == 0
    assert "ok        model.safetensors" in capsys.readouterr().out


def test_verify_writes_nothing(folder: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(Path().rglob("*"))}
    verify(folder, data=True)
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(Path().rglob("*"))}
