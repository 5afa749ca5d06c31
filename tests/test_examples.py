"""Questions of the test split as files: each printed command asks that question, of its picture and its recording."""

import io
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from muomni.cli import main
from muomni.data.shards import SPLITS, ShardWriter, write_index


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(file, "PNG")
    return file.getvalue()


def flac(hz: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.sin(2 * np.pi * hz * np.arange(8000) / 16000) * 0.3, 16000, format="FLAC")
    return file.getvalue()


def question(task: str, text: str, answer: str, speech: bool = False, turns: int = 1, **members: bytes) -> dict:
    files = {f"0.{ending}": data for ending, data in members.items()}
    content = [{"type": {"0.png": "image", "0.flac": "audio"}[name], "member": name} for name in files]
    content += [{"type": "text", "text": text}] if text else []
    said = {"role": "assistant", "content": [{"type": "text", "text": answer}], "speech": speech}
    messages = [{"role": "user", "content": content}, said] * turns
    about = {"task": task, "kind": "k", "messages": messages, "targets": [answer], "key": "k", "utterance": "u1"}
    return {"json": about, **files}


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    samples = [
        question("name", "What's this?", "It is an apple.", png=png("red")),
        question("name", "What's this?", "It is a dog.", png=png("brown")),
        question("name", "What's this?", "It is a cat.", png=png("grey"), turns=2),
        question("dictation", "Write down what you hear.", "There is a dog.", flac=flac(300)),
        question("read_aloud", 'Say "this": I see.', "I see.", speech=True),
        question("spoken_scene", "", "It is a dog.", speech=True, png=png("blue"), flac=flac(400)),
    ]
    entries = {}
    for split in SPLITS:
        with ShardWriter(tmp_path / "shards", split, 100) as writer:
            for number, members in enumerate(samples):
                writer.write(f"{split}-{number}", members)
        entries[split] = writer.shards
    write_index(tmp_path / "shards", entries, [])
    return tmp_path / "shards"


def test_the_commands_ask_what_the_shards_hold(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["examples", str(shards), "--count", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = dict(zip(map(str.strip, lines[1::2]), lines[::2], strict=True))
    commands = [shlex.split(command) for command in told]
    assert len(commands) == 5, "the conversation of two questions is no example"
    for command in commands:
        files = [Path(word) for word in command if word.endswith((".png", ".flac"))]
        assert all(file.is_file() for file in files)
    colours = {}
    for command, (text, line) in zip(commands, told.items(), strict=True):
        if command[1] == "chat" and "--audio-in" not in command:
            assert command[-2:] == ["--text", "What's this?"], text
            colours[Image.open(command[3]).getpixel((0, 0))] = line
    assert "apple" in colours[(255, 0, 0)] and "dog" in colours[(165, 42, 42)]
    assert ["muomni", "transcribe", "examples/dictation-0.flac"] in commands
    assert ["muomni", "say", "I see.", "--audio-out", "examples/read_aloud-0.wav"] in commands
    spoken = next(command for command in commands if "--audio-in" in command)
    assert spoken[2:] == [
        *("--image", "examples/spoken_scene-0.png", "--audio-in", "examples/spoken_scene-0.flac"),
        *("--audio-out", "examples/spoken_scene-0.wav"),
    ]
    assert Path("examples/spoken_scene-0.flac").read_bytes() == flac(400)


def test_what_is_asked_aloud_is_told_where_the_speech_corpus_is(
    shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data/shards").mkdir(parents=True)
    shards.rename("data/shards/conversations")
    assert main(["examples", "--task", "spoken_scene"]) == 0
    assert capsys.readouterr().out.startswith('spoken_scene: right is "It is a dog."')
    row = {"id": "u1", "text": "What is this?", "split": "test", "speaker": "a", "file": "u1.flac", "seconds": 0.5}
    Path("data/corpus/speech").mkdir(parents=True)
    Path("data/corpus/speech/utterances.jsonl").write_text(json.dumps(row | {"kind": "q", "key": "k"}) + "\n")
    assert main(["examples", "--task", "spoken_scene"]) == 0
    assert capsys.readouterr().out.startswith('spoken_scene: asked aloud is "What is this?", right is "It is a dog."')


def test_a_seed_draws_the_same_ones_again(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def drawn(seed: int) -> str:
        assert main(["examples", str(shards), "--task", "name", "--seed", str(seed)]) == 0
        return capsys.readouterr().out

    first = [drawn(seed) for seed in range(8)]
    assert first == [drawn(seed) for seed in range(8)] and len(set(first)) == 2


def test_a_task_that_is_not_there_is_told(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["examples", str(shards), "--task", "namee"]) == 2
    assert "did you mean 'name'" in capsys.readouterr().err and not Path("examples").exists()
    assert main(["examples", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
