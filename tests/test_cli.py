"""The muomni command: answers on standard output alone, and one line for every kind of bad input."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from PIL import Image

from muomni import __version__, model_commands
from muomni.cli import main

ROOT = Path(__file__).parent.parent


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with good inputs and every kind of bad one."""
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    Image.new("RGB", (40, 30), "blue").save(tmp_path / "blue.png")
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    soundfile.write(tmp_path / "speech.wav", noise, 16000)
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan), 16000, subtype="FLOAT")
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello")
    (tmp_path / "cut.png").write_bytes((tmp_path / "red.png").read_bytes()[:60])
    (tmp_path / "cut.wav").write_bytes((tmp_path / "speech.wav").read_bytes()[:20000])
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")
    (tmp_path / "folder").mkdir()
    return tmp_path


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], checkpoint: Path) -> Run:
    """Run the command in this process; ``CKPT`` stands for a checkpoint. Gives code, output, errors."""

    def call(*args: object, model: bool = True) -> tuple[int, str, str]:
        more = ["--checkpoint", str(checkpoint), "--device", "cpu"] if model else []
        code = main([*map(str, args), *more])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def one_error(code: int, out: str, err: str) -> str:
    """Check that a run failed as it should, and return the line."""
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and out == "" and len(lines) == 1, (code, out, err)
    assert "Traceback" not in err
    return lines[0]


def test_text_to_text(run: Run) -> None:
    code, out, err = run("chat", "--text", "What is it?", "--temperature", 1, "--max-tokens", 12)
    assert code == 0 and out.strip() and out.endswith("\n")
    assert "context 160: text 8" in err and "context" not in out
    again = run("chat", "--text", "What is it?", "--temperature", 1, "--max-tokens", 12)
    assert again[1] == out
    assert run("chat", "--text", "What is it?", "--temperature", 1, "--max-tokens", 12, "--seed", 1)[1] != out
    assert run("chat", "--text", "What is it?", "--temperature", 1, "--max-tokens", 12, "--stream")[1] == out


def test_pictures_and_recordings_are_used_and_an_answer_is_spoken(run: Run, files: Path) -> None:
    target = files / "answer.wav"
    options = ("--temperature", 1, "--top-p", 0.999, "--max-tokens", 12)  # near tokens change places
    code, out, err = run(
        "chat", "--image", files / "red.png", "--image", files / "blue.png", "--audio-in", files / "speech.wav",
        "--audio-out", target, *options,
    )  # fmt: skip
    assert code == 0 and "image 10" in err and "audio 13" in err and out.strip()
    wave, rate = soundfile.read(target)
    assert rate == 16000 and len(wave) > 1600 and np.abs(wave).max() > 0
    swapped = run(
        "chat", "--image", files / "blue.png", "--image", files / "red.png", "--audio-in", files / "speech.wav",
        *options,
    )  # fmt: skip
    assert swapped[1] != out


def test_transcribe_prints_text_alone(run: Run, files: Path) -> None:
    code, out, err = run("transcribe", files / "speech.wav")
    assert code == 0 and out.endswith("\n") and "audio 13" in err


def test_say_writes_a_wav_file(run: Run, files: Path) -> None:
    code, out, err = run("say", "Good morning. How are you?", "--audio-out", files / "said.wav")
    wave, rate = soundfile.read(files / "said.wav")
    assert (code, out, rate) == (0, "", 16000) and len(wave) > 3200 and "said.wav" in err
    run("say", "Something else.", "--audio-out", files / "other.wav")
    assert (files / "said.wav").read_bytes() != (files / "other.wav").read_bytes()


@pytest.mark.parametrize("command", [["say", "Good morning. How are you?"], ["chat", "--text", "What is it?"]])
def test_streamed_speech_lasts_as_long_as_the_whole(run: Run, files: Path, command: list[str]) -> None:
    options = ["--temperature", 1, "--max-tokens", 12] if command[0] == "chat" else []
    whole = run(*command, *options, "--audio-out", files / "whole.wav")
    parts = run(*command, *options, "--audio-out", files / "parts.wav", "--stream")
    assert whole[0] == parts[0] == 0 and whole[1] == parts[1]
    waves = [soundfile.read(files / name) for name in ("whole.wav", "parts.wav")]
    assert waves[0][1] == waves[1][1] == 16000 and len(waves[0][0]) == len(waves[1][0]) > 1600


BAD_MEDIA = [
    ("chat", "--image", "nowhere.png", "no such file"),
    ("chat", "--image", "empty", "empty"),
    ("chat", "--image", "text", "not a picture"),
    ("chat", "--image", "cut.png", "damaged or cut off"),
    ("chat", "--image", "huge.png", "pixels"),
    ("chat", "--image", "speech.wav", "not a picture"),
    ("chat", "--image", "folder", "is a folder"),
    ("chat", "--image", "x" * 300, "cannot be read"),
    ("chat", "--audio-in", "nowhere.wav", "no such file"),
    ("chat", "--audio-in", "empty", "empty"),
    ("chat", "--audio-in", "red.png", "no audio"),
    ("chat", "--audio-in", "text", "no audio"),
    ("chat", "--audio-in", "cut.wav", "cut off"),
    ("chat", "--audio-in", "nan.wav", "NaN"),
    ("chat", "--audio-in", "folder", "is a folder"),
    ("chat", "--video", "nowhere.mp4", "no such file"),
    ("chat", "--video", "empty", "empty"),
    ("chat", "--video", "text", "no video"),
    ("chat", "--video", "speech.wav", "no pictures"),
    ("chat", "--video", "folder", "is a folder"),
    ("transcribe", "", "nowhere.wav", "no such file"),
    ("transcribe", "", "cut.wav", "cut off"),
]


@pytest.mark.parametrize(("command", "option", "name", "said"), BAD_MEDIA)
def test_bad_media_is_one_line_and_leaves_no_file(
    run: Run, files: Path, command: str, option: str, name: str, said: str
) -> None:
    before = sorted(files.iterdir())
    more = ["--text", "What?", "--audio-out", files / "out.wav"] if command == "chat" else []
    line = one_error(*run(command, *([option] if option else []), files / name, *more))
    assert said in line and name[:100] in line
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["chat", "--text", ""], "--text: is empty"),
        (["chat", "--text", "dog " * 400], "has room for"),
        (["chat", "--text", "Hi", "--temperature", "-1"], "--temperature: expected a number from 0 to 10, got '-1'"),
        (["chat", "--text", "Hi", "--temperature", "nan"], "--temperature"),
        (["chat", "--text", "Hi", "--top-p", "0"], "--top-p"),
        (["chat", "--text", "Hi", "--top-k", "2.5"], "--top-k: expected a whole number"),
        (["chat", "--text", "Hi", "--max-tokens", "0"], "--max-tokens"),
        (["chat", "--text", "Hi", "--seed", "x"], "--seed"),
        (["chat", "--text", "Hi", "--device", "tpu"], "invalid choice: 'tpu'"),
        (["chat", "--txt", "Hi"], "unrecognized arguments"),
        (["chat", "--text"], "expected one argument"),
        (["chat", "--audio-out", "a.wav"], "there is no question"),
        (["say", "", "--audio-out", "a.wav"], "no letter or digit"),
        (["say", "?!", "--audio-out", "a.wav"], "no letter or digit"),
        (["say", "Hello"], "--audio-out"),
        (["transcribe"], "FILE"),
        (["speak"], "invalid choice: 'speak'"),
        ([], "COMMAND"),
    ],
)
def test_bad_options_are_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    line = one_error(*run(*args, model=bool(args) and args[0] in ("chat", "say", "transcribe")))
    assert said in line and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("out.mp3", "ends in .wav"),
        ("nowhere/out.wav", "no such folder"),
        ("red.png/out.wav", "no such folder"),
        ("dir.wav", "is not a file"),
        ("x" * 300 + ".wav", "cannot be written"),
    ],
)
def test_a_bad_place_for_sound_is_found_before_any_work(
    run: Run, files: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    (files / "dir.wav").mkdir()

    def too_early(args: object) -> None:
        raise AssertionError("the model was loaded first")

    monkeypatch.setattr(model_commands, "load", too_early)
    for command in (("chat", "--text", "Hi"), ("say", "Hi")):
        assert said in one_error(*run(*command, "--audio-out", files / name))


def test_an_existing_sound_file_survives_a_failure(run: Run, files: Path) -> None:
    target = files / "kept.wav"
    target.write_bytes(b"mine")
    one_error(*run("chat", "--image", files / "cut.png", "--audio-out", target))
    assert target.read_bytes() == b"mine"


@pytest.mark.parametrize("command", [["chat", "--text", "Hi"], ["transcribe", "speech.wav"], ["say", "Hi"]])
def test_a_missing_checkpoint_names_make_repro(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(files)
    more = ["--audio-out", "out.wav"] if command[0] == "say" else []
    line = one_error(main([*command, *more]), *capsys.readouterr())
    assert "checkpoints/omni" in line and "make repro" in line and not (files / "out.wav").exists()


def damage_config(folder: Path, change: Callable[[dict], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "model.safetensors is missing": lambda f: (f / "model.safetensors").unlink(),
    "not readable as safetensors": lambda f: (f / "model.safetensors").write_bytes(b"x" * 50),
    "not readable as safetensors ": lambda f: (f / "model.safetensors").write_bytes(
        (f / "model.safetensors").read_bytes()[:-100]
    ),
    "not valid JSON": lambda f: (f / "config.json").write_text("{"),
    "thinker.n_layers": lambda f: damage_config(f, lambda c: c["thinker"].update(n_layers="two")),
    "missing tensors": lambda f: damage_config(f, lambda c: c["thinker"].update(n_layers=3)),
    "other shapes": lambda f: damage_config(f, lambda c: c["thinker"].update(d_ff=64)),
    "vocoder: missing": lambda f: damage_config(f, lambda c: c.pop("vocoder")),
    "tokenizer.model: no such file": lambda f: (f / "tokenizer.model").unlink(),
    "not a tokenizer model": lambda f: (f / "tokenizer.model").write_bytes(b"junk"),
}


@pytest.mark.parametrize("said", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_never_used(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    folder = tmp_path / "omni"
    shutil.copytree(checkpoint, folder)
    DAMAGES[said](folder)
    line = one_error(main(["chat", "--text", "Hi", "--checkpoint", str(folder)]), *capsys.readouterr())
    assert said.strip() in line and str(folder) in line


def test_a_file_is_no_checkpoint(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = one_error(main(["chat", "--text", "Hi", "--checkpoint", str(files / "text")]), *capsys.readouterr())
    assert "no checkpoint folder" in line


def test_no_gpu_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no CUDA GPU" in one_error(*run("chat", "--text", "Hi", "--device", "cuda"[:4], model=False))


def talk(monkeypatch: pytest.MonkeyPatch, run: Run, *lines: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    return run("chat", "--temperature", 1, "--max-tokens", 8)


def test_a_conversation_from_a_pipe_is_kept(run: Run, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = talk(
        monkeypatch,
        run,
        f"/image {files / 'red.png'}",
        f"/audio '{files / 'speech.wav'}'",
        "What is it?",
        "",
        "Where is it?",
        f"/say {files / 'last.wav'}",
        "/reset",
        "Where is it?",
        "/quit",
        "never asked",
    )
    plans = [line for line in err.splitlines() if line.startswith("context")]
    assert code == 0 and len(plans) == 3 and "error" not in err
    assert all("image 5, audio 13" in plan for plan in plans[:2]) and "image" not in plans[2]
    assert soundfile.info(files / "last.wav").frames > 0
    assert out.strip() and ">" not in out[:2]


def test_a_bad_line_is_reported_and_the_conversation_goes_on(
    run: Run, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = [f"/image {files / 'cut.png'}", "/image", "/dance", "/say x.wav", f"/video {files / 'gone.mp4'}", "/send"]
    code, out, err = talk(monkeypatch, run, *bad, "Hi", "/help")
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(errors) == len(bad) and "Traceback" not in err
    assert out.strip() and "/quit" in err and "/quit" not in out


def test_no_input_at_all_ends_quietly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert talk(monkeypatch, run)[:2] == (0, "")


def test_interruption(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(model_commands.COMMANDS, "chat", interrupt)
    code, out, err = run("chat", "--text", "Hi")
    assert (code, out, err.strip()) == (130, "", "")


def test_help_and_mistakes_do_not_wait_for_pytorch() -> None:
    script = (
        "import sys, muomni.cli as c\ntry: c.main(['--help'])\nexcept SystemExit: pass\n"
        "assert c.main(['chat', '--txt']) == 2 and 'torch' not in sys.modules and 'pydantic' not in sys.modules"
    )
    command = [sys.executable, "-c", script]
    assert "transcribe" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_a_reader_that_has_gone_is_no_fault(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "muomni.cli", *arguments]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ended = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False, env=buffered)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out == f"muomni {__version__}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with profiles, as the root of the repository."""
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_params_prints_the_table(run: Run, project: Path) -> None:
    code, out, err = run("params", "--profile", "base", model=False)
    assert (code, err) == (0, "") and "20,318,464" in out and "25.65 M" in out
    shutil.copy("profiles/tiny.yaml", "params.yaml")
    tiny = run("params", model=False)[1].replace("params.yaml", "tiny       ")
    assert run("params", "--profile", "tiny", model=False)[1].split() == tiny.split()
    assert run("params", "--params", "profiles/base.yaml", model=False)[1].split()[2:] == out.split()[2:]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["params"], "params.yaml: no such parameter file"),
        (["params", "--profile", "bsae"], "did you mean 'base'?"),
        (["params", "--profile", "base", "--params", "x.yaml"], "not allowed with"),
        (["params", "--params", "profiles"], "no such parameter file"),
        (["profile", "large"], "there are base, compact"),
        (["profile", "../params"], "not known"),
    ],
)
def test_bad_profiles_and_files(run: Run, project: Path, args: list[str], said: str) -> None:
    assert said in one_error(*run(*args, model=False))
    assert not (project / "params.yaml").exists()


def test_profile_copies_a_checked_file_and_keeps_changes(run: Run, project: Path) -> None:
    assert run("profile", model=False)[1].split() == sorted(p.stem for p in (project / "profiles").glob("*.yaml"))
    assert run("profile", "tiny", model=False)[:2] == (0, "")
    params, source = project / "params.yaml", project / "profiles/tiny.yaml"
    assert params.read_bytes() == source.read_bytes() and not (project / "params.yaml.bak").exists()
    params.write_text(params.read_text() + "# mine\n")
    code, _, err = run("profile", "tiny", model=False)
    assert code == 0 and "params.yaml.bak" in err
    assert (project / "params.yaml.bak").read_text().endswith("# mine\n")
    assert params.read_bytes() == source.read_bytes()


def test_a_faulty_profile_changes_nothing(run: Run, project: Path) -> None:
    run("profile", "tiny", model=False)
    before = (project / "params.yaml").read_bytes()
    values = yaml.safe_load(before)
    values["talker"]["codes"] = 64
    (project / "profiles/own.yaml").write_text(yaml.safe_dump(values))
    assert "talker.codes: 64" in one_error(*run("profile", "own", model=False))
    assert (project / "params.yaml").read_bytes() == before


def test_no_profiles_here(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "root of the repository" in one_error(*run("profile", "tiny", model=False))
