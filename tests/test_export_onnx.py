"""Export to ONNX: every file gives what the model gives, at any length, and all of them together answer and speak."""

import json
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from small_models import OMNI
from test_export import QUESTION, close, other_omni
from torch import Tensor

from muomni.cli import main
from muomni.export.onnx_files import files, quantise, write_file
from muomni.generate import Session, last
from muomni.mel import count_frames, log_mel
from muomni.omni import Omni
from muomni.speech import speak
from muomni.tokenizer import Tokenizer

TESTS = Path(__file__).parent
Small = tuple[Omni, Tokenizer]


class Files:
    """ONNX files of a model, exported when they are first used."""

    def __init__(self, model: Omni, folder: Path) -> None:
        self.model, self.folder = model, folder

    def session(self, name: str) -> Any:
        """A file in onnxruntime."""
        path = self.folder / f"{name}.onnx"
        if not path.exists():
            write_file(path, next(file for file in files(self.model) if file.name == name))
            onnx.checker.check_model(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(path, options)

    def run(self, name: str, **inputs: Tensor) -> list[Tensor]:
        """What a file gives."""
        given = {key: value.numpy() for key, value in inputs.items()}
        return [torch.from_numpy(x) for x in self.session(name).run(None, given)]


@pytest.fixture(scope="module")
def whole(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small model, by the command."""
    out = tmp_path_factory.mktemp("onnx") / "out"
    assert main(["export", str(out), "--checkpoint", str(checkpoint), "--format", "onnx"]) == 0
    return out


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Files of `other_omni`."""
    return Files(other_omni(), tmp_path_factory.mktemp("other"))


@pytest.fixture(params=["small", "other"])
def each(request: pytest.FixtureRequest, small: Small, whole: Path) -> Files:
    """One model after the other."""
    return Files(small[0], whole / "onnx") if request.param == "small" else request.getfixturevalue("other")


@pytest.fixture
def draw() -> torch.Generator:
    """A source of numbers."""
    return torch.Generator().manual_seed(11)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    """Nothing learns here."""
    with torch.no_grad():
        yield


@pytest.mark.parametrize("pictures", [1, 3])
def test_vision_encoder(each: Files, draw: torch.Generator, pictures: int) -> None:
    model = each.model
    pixels = torch.rand(pictures, 3, 32, 32, generator=draw)
    wanted = model.project_images(model.image_features(pixels).flatten(0, 1))
    close(each.run("vision_encoder", pixels=pixels)[0].flatten(0, 1), wanted)


def test_pictures_whose_patches_the_grid_does_not_divide(tmp_path: Path, draw: torch.Generator) -> None:
    vision = OMNI.vision_encoder.model_copy(update={"image_size": 56})
    fusion = OMNI.fusion.model_copy(update={"image_grid": 4})
    model = Omni(OMNI.model_copy(update={"vision_encoder": vision, "fusion": fusion})).eval()
    pixels = torch.rand(2, 3, 56, 56, generator=draw)  # 7 patches on a side, 4 cells
    wanted = model.project_images(model.image_features(pixels).flatten(0, 1))
    close(Files(model, tmp_path).run("vision_encoder", pixels=pixels)[0].flatten(0, 1), wanted)


@pytest.mark.parametrize("samples", [1, 159, 320, 321, 5000])
def test_log_mel(small: Small, whole: Path, draw: torch.Generator, samples: int) -> None:
    wave = torch.rand(2, samples, generator=draw) * 2 - 1
    (mel,) = Files(small[0], whole / "onnx").run("log_mel", wave=wave)
    assert mel.shape[1] == count_frames(samples, OMNI.mel)
    for row in range(2):
        close(mel[row], log_mel(wave[row], OMNI.mel))


@pytest.mark.parametrize("frames", [[2], [37, 20], [1, 200, 400]])
def test_audio_encoder(small: Small, whole: Path, draw: torch.Generator, frames: list[int]) -> None:
    model, lengths = small[0], torch.tensor(frames)
    mel = torch.randn(len(frames), max(frames), OMNI.mel.n_mels, generator=draw)
    found, sizes = Files(model, whole / "onnx").run("audio_encoder", mel=mel, lengths=lengths)
    assert sizes.tolist() == [-(-count // 8) for count in frames]
    for row, count in enumerate(frames):  # each as if it were alone
        states, _ = model.audio_encoder(mel[row : row + 1, :count].clone(), torch.tensor([count]))
        close(found[row, : sizes[row]], model.audio_projector(states)[0])


def no_cache(model: Omni, part: str, rows: int) -> dict[str, Tensor]:
    """Keys and values of nothing."""
    cfg = getattr(model.cfg, part)
    empty = torch.zeros(cfg.n_layers, rows, cfg.n_kv_heads, 0, cfg.d_model // cfg.n_heads)
    return {"past_keys": empty, "past_values": empty}


def test_thinker_reads_at_once_in_pieces_and_beside_padding(each: Files, draw: torch.Generator) -> None:
    model = each.model
    ids = torch.randint(384, (2, 12), generator=draw)
    (x,) = each.run("embedding", ids=ids)
    states = model.thinker(model.thinker.embed(ids))
    logits = model.thinker.logits(states)
    last = torch.tensor([11, 11])
    ones = torch.ones(2, 12, dtype=torch.int64)
    found = each.run("thinker", embeddings=x, mask=ones, last=last, **no_cache(model, "thinker", 2))
    close(found[0], states)
    close(found[1], logits[:, -1])
    cache, at = no_cache(model, "thinker", 2), 0
    for size in (5, 1, 1, 3, 2):
        part, mask = x[:, at : at + size], ones[:, : at + size]
        found = each.run("thinker", embeddings=part, mask=mask, last=torch.tensor([size - 1, 0]), **cache)
        close(found[0], states[:, at : at + size])
        close(found[1], torch.stack((logits[0, at + size - 1], logits[1, at])))
        cache, at = {"past_keys": found[2], "past_values": found[3]}, at + size
    # The second row has 7 real places, padded on the left, then on the right.
    for real in (slice(5, 12), slice(0, 7)):
        padded, mask = x.clone(), ones.clone()
        mask[1] = 0
        mask[1, real], padded[1, real] = 1, x[1, :7]
        last = torch.tensor([11, real.stop - 1])
        found = each.run("thinker", embeddings=padded, mask=mask, last=last, **no_cache(model, "thinker", 2))
        close(found[1], torch.stack((logits[0, 11], logits[1, 6])))
        mask = torch.cat((mask, ones[:, :1]), 1)
        past = {"past_keys": found[2], "past_values": found[3]}
        more = torch.stack((x[0, :1], x[1, 7:8]))
        found = each.run("thinker", embeddings=more, mask=mask, last=torch.tensor([0, 0]), **past)
        close(found[1][1], logits[1, 7])


def test_talker_says_what_the_talker_says(each: Files, draw: torch.Generator) -> None:
    talker, width = each.model.talker, OMNI.thinker.d_model
    spelled = torch.randint(27, (2, 6), generator=draw)
    states = torch.randn(2, 6, width, generator=draw)
    voices = torch.tensor([0, 1])
    (known,) = each.run("characters", characters=spelled, states=states, voice=voices)
    close(known, talker.condition(spelled, states, voices))
    codes, positions = talker.generate(spelled[1], states[1], torch.Generator(), temperature=0, voice=1)
    assert len(codes) > 6
    cache = no_cache(each.model, "talker", 2)
    previous = torch.full((2, talker.cfg.codebooks), talker.cfg.codes)
    noise = torch.zeros(2, talker.cfg.codebooks, talker.cfg.codes)
    stay = 0
    for frame, position in enumerate(positions.tolist()):
        stay = stay + 1 if frame and positions[frame - 1] == position else 0
        where = {"position": torch.tensor([0, position]), "stay": torch.tensor([3, stay])}
        found = each.run("talker", previous=previous, character_states=known, noise=noise, **where, **cache)
        assert torch.equal(found[0][1], codes[frame])
        previous, cache = found[0], {"past_keys": found[3], "past_values": found[4]}
    noise[:, -1, 3] = 1e6  # noise decides
    where = {"position": torch.tensor([0, 0]), "stay": torch.tensor([0, 0])}
    found = each.run("talker", previous=previous, character_states=known, noise=noise, **where, **cache)
    assert found[0][:, -1].tolist() == [3, 3]


@pytest.mark.parametrize("frames", [1, 40])
def test_codec_and_vocoder(each: Files, draw: torch.Generator, frames: int) -> None:
    model = each.model
    codes = torch.randint(32, (2, frames, model.cfg.codec.codebooks), generator=draw)
    (mel,) = each.run("codec_decoder", codes=codes)
    close(mel, model.codec.decode(codes))
    phases = {}
    if model.cfg.vocoder.kind == "griffin_lim":
        seed = torch.Generator().manual_seed(model.cfg.griffin_lim.seed)
        phases = {"phase": torch.rand(OMNI.mel.n_fft // 2 + 1, frames + 1, generator=seed)}
    (sound,) = each.run("vocoder", mel=mel[0], **phases)
    close(sound, model.vocoder(mel[0]))


def test_int8_is_smaller_and_nearly_the_same(small: Small, whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "thinker.onnx"
    path.write_bytes((whole / "onnx" / "thinker.onnx").read_bytes())
    before = path.stat().st_size
    quantise(path)
    assert path.stat().st_size < before
    x = small[0].thinker.embed(torch.arange(20, 40)[None])
    inputs = {"embeddings": x, "mask": torch.ones(1, 20, dtype=torch.int64), "last": torch.tensor([19])}
    cache = no_cache(small[0], "thinker", 1)
    exact = Files(small[0], whole / "onnx").run("thinker", **inputs, **cache)[0]
    coarse = Files(small[0], tmp_path).run("thinker", **inputs, **cache)[0]
    assert float((exact - coarse).norm() / exact.norm()) < 0.1
    assert not torch.equal(exact, coarse)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture and a recording."""
    folder, rng = tmp_path_factory.mktemp("inputs"), np.random.default_rng(5)
    Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / "picture.png")
    with wave.open(str(folder / "question.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(rng.integers(-3000, 3000, 9001, dtype=np.int16).tobytes())
    return folder


def test_answer_and_speech_by_onnxruntime_alone(small: Small, whole: Path, inputs: Path, tmp_path: Path) -> None:
    model, tokenizer = small
    picture, recording = str(inputs / "picture.png"), str(inputs / "question.wav")
    given = {"picture": picture, "recording": recording, "question": QUESTION, "limit": 12, "voice": 1}
    (tmp_path / "given.json").write_text(json.dumps(given))
    command = [TESTS / "exported_runtime.py", whole / "onnx", tmp_path / "given.json", tmp_path / "found.npz"]
    subprocess.run([sys.executable, "-P", *command], env={}, check=True, timeout=120)
    found = {name: torch.from_numpy(x) for name, x in np.load(tmp_path / "found.npz").items() if name != "text"}
    session = Session(model, tokenizer)
    question = session.conversation.message(QUESTION, [picture], None, [recording])
    close(found["prompt"], session.conversation.prompt(question, 12).x[0])
    answer = last(session.ask(QUESTION, [picture], None, [recording], max_tokens=12))
    assert str(np.load(tmp_path / "found.npz")["text"]) == answer.text and answer.text
    ids, states = session._said
    close(found["states"], states)
    spoken = list(speak(model, tokenizer, ids, states, torch.Generator(), temperature=0, voice=1))
    assert torch.equal(found["codes"], torch.cat([part.codes for part in spoken]))
    close(found["wave"], torch.cat([part.wave for part in spoken]), 1e-3)
    assert torch.equal(found["drawn"], found["again"]) and len(found["drawn"])


def example(whole: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """Run the script that comes with the folder."""
    command = [sys.executable, str(whole / "onnx" / "run_onnx.py"), *map(str, args)]
    return subprocess.run(command, env={}, capture_output=True, text=True, timeout=120, check=False)


def test_example_answers_on_the_command_line(small: Small, whole: Path, inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "answer.wav"
    done = example(whole, "--text", QUESTION, "--image", inputs / "picture.png", "--audio-out", out, "--max-tokens", 12)
    answer = last(Session(*small).ask(QUESTION, [str(inputs / "picture.png")], max_tokens=12))
    assert done.returncode == 0 and done.stdout == answer.text + "\n", done.stderr
    with wave.open(str(out)) as file:
        assert file.getframerate() == 16000 and file.getnframes() % 320 == 0 and file.getnframes()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--text", " "], "empty"),
        (["--text", "a", "--image", "nothing.png"], "no such file"),
        (["--audio-in", "nothing.wav"], "cannot be read as WAV"),
        (["--text", "a", "--voice", "7"], "there are 2"),
        (["--text", "dog " * 200], "positions"),
    ],
)
def test_example_says_in_one_line_what_is_wrong(whole: Path, args: list[str], said: str) -> None:
    done = example(whole, *args)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and said in done.stderr and done.stderr.count("\n") == 1
