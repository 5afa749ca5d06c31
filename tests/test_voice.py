"""`muomni voice`: what it refuses, what it keeps as it is, and that an interrupted one ends with the same bits."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from own_corpora import sentence, sound

from muomni.cli import main
from muomni.codec import Codec
from muomni.evaluate.similarity import SpeakerEncoder, equal_error_rate, find_encoder
from muomni.evaluate.speech import say
from muomni.omni import Omni, load_omni
from muomni.tokenizer import Tokenizer
from muomni.voice import making, material
from muomni.voice.growing import grown_codec, grown_talker, own_codec, own_talker
from muomni.voice.recordings import dealt
from muomni.voice.variants import starts_of, variants

RATE, COUNT = 16000, 20


def spoken_like(number: int) -> np.ndarray:
    """Three seconds of tones that go up and down, no two the same."""
    time = np.arange(3 * RATE) / RATE
    pitch = 120 + 40 * np.sin(2 * np.pi * (0.7 + 0.05 * number) * time)
    wave = sum(np.sin(2 * np.pi * np.cumsum(pitch * k) / RATE) / k for k in range(1, 9))
    return (0.2 * wave * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))).astype(np.float32)


def record(folder: Path, count: int = COUNT, change: Callable[[int, np.ndarray], np.ndarray] | None = None) -> Path:
    """A folder in LJSpeech's layout."""
    lines = []
    for number in range(count):
        wave = spoken_like(number)
        sound(folder / "wavs" / f"r{number:03d}.wav", wave=change(number, wave) if change else wave)
        lines.append(f"r{number:03d}|{sentence(number * 7)}\n")
    (folder / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings that nothing is wrong with."""
    return record(tmp_path_factory.mktemp("person"))


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUOMNI_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(making, "MORE", 3)
    monkeypatch.setattr(making, "MORE_HELD", 1)
    monkeypatch.setattr(material, "DRAWS", 1)
    return tmp_path


def command(folder: Path, checkpoint: Path, *more: str) -> list[str]:
    """A short training of a voice called ann."""
    options = ["--steps", "8", "--codec-steps", "6", "--count", "1", "--workers", "1"]
    options += ["--judge", "off", "--device", "cpu"]
    return ["voice", str(folder), "--as", "ann", "--checkpoint", str(checkpoint), *options, *more]


@contextmanager
def interrupted_at(name: str, step: int) -> Iterator[None]:
    """Ctrl-C at a step of a training, once."""
    armed = [True]

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event == "muomni.step" and armed and args == (name, step):
            armed.clear()
            raise KeyboardInterrupt

    sys.addaudithook(hook)
    yield
    armed.clear()


def test_interrupted_anywhere_it_ends_with_the_same_bits_and_the_model_speaks(
    person: Path, checkpoint: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    assert main(command(person, checkpoint, "--out", "whole")) == 0
    assert "--voice ann" in capsys.readouterr().out
    for name, step in (("codec", 3), ("converter", 3), ("talker", 5)):
        with interrupted_at(name, step):
            assert main(command(person, checkpoint, "--out", "again")) == 130
        assert not Path("again").exists()
    assert main(command(person, checkpoint, "--out", "again")) == 0
    assert "going on after step" in capsys.readouterr().err
    assert Path("whole/model.safetensors").read_bytes() == Path("again/model.safetensors").read_bytes()
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before
    assert Path("metrics/voices/ann.html").is_file() and not list(Path("state/voices/ann").glob("*/*"))

    old, tokenizer, _ = load_omni(checkpoint)
    new, _, card = load_omni("whole")
    assert new.cfg.talker.voices == [*old.cfg.talker.voices, "ann"] and card["params"]["voice"]["recordings"] == COUNT
    codes = old.cfg.codec.codes
    for voice in range(len(old.cfg.talker.voices)):  # they say what they said, and sound as they did
        was, now = (say(m.talker, m.thinker, tokenizer, "Two dogs.", 3, voice).codes for m in (old, new))
        assert torch.equal(was, now) and int(now.max()) < codes
        assert torch.allclose(old.codec.decode(was[None]), new.codec.decode(now[None]), atol=1e-4)
    assert int(say(new.talker, new.thinker, tokenizer, "Two dogs.", 3, len(old.cfg.talker.voices)).codes.min()) >= codes
    said = ["say", "Two dogs.", "--checkpoint", "whole", "--voice", "ann", "--audio-out"]
    assert main([*said, "dogs.wav"]) == 0 and main([*said, "stream.wav", "--stream"]) == 0
    assert main(["verify", "whole"]) in (0, 1) and "differs" not in capsys.readouterr().err
    assert main(command(person, Path("whole"), "--out", "third")) == 2  # there is an ann already
    assert "has such a voice already" in capsys.readouterr().err


def clip(number: int, wave: np.ndarray) -> np.ndarray:
    """Much too loud."""
    return np.clip(wave * 20, -1, 1)


@pytest.mark.parametrize(
    ("make", "more", "reason"),
    [
        (lambda f: record(f, 5), (), "5 recordings of"),
        (lambda f: record(f, change=clip), (), "clipped: would spoil the voice"),
        (lambda f: f, (), "nothing that can be learned from"),
        (lambda f: f / "none", (), "no such folder"),
        (record, ("--source", "parquet"), "is no layout of recordings"),
        (record, ("--as", "a b"), "is not a name"),
        (record, ("--as", "hibari"), "has such a voice already"),
        (record, ("--out", "."), "is there already"),
        (record, ("--speaker", "bob"), "there are own"),
        (record, ("--checkpoint", "nowhere"), "no checkpoint folder here"),
    ],
)
def test_what_cannot_become_a_voice_is_refused_in_one_line(
    make: Callable[[Path], Path],
    more: tuple[str, ...],
    reason: str,
    checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make(tmp_path_factory.mktemp("folder"))
    assert main(command(folder, checkpoint, *more)) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and reason in last
    assert not Path("checkpoints").exists()


def test_a_few_bad_recordings_are_left_out_and_told(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = record(tmp_path / "some", 24, lambda number, wave: clip(number, wave) if number < 2 else wave)
    (folder / "wavs" / "r005.wav").write_bytes(b"no sound")
    assert main(command(folder, checkpoint, "--out", "made", "--limit", "0.2")) == 0
    told = capsys.readouterr().err
    assert "cannot be used" in told and "clipped" in told
    assert load_omni("made")[2]["params"]["voice"]["recordings"] == 21


def test_two_at_once_are_refused(person: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("state/voices/ann")
    folder.mkdir(parents=True)
    holder = os.fork()
    if holder == 0:  # a lock of this process would not keep this process out
        import fcntl
        import signal

        file = (folder / "lock").open("w")
        fcntl.lockf(file, fcntl.LOCK_EX)
        (folder / "held").touch()
        signal.pause()
    while not (folder / "held").exists():
        pass
    try:
        assert main(command(person, checkpoint)) == 2
        assert "is being learned already" in capsys.readouterr().err
    finally:
        os.kill(holder, 9)
        os.waitpid(holder, 0)


def test_each_codec_in_the_grown_one_decodes_as_it_does_alone(small: tuple[Omni, Tokenizer]) -> None:
    old = small[0].codec
    own = own_codec(old)
    assert isinstance(own, Codec) and own.cfg.codes == old.cfg.codes
    with torch.no_grad():
        own.decoder.weight.add_(0.1)
        for book in own.books:
            book.codebook.add_(0.2)
    grown = grown_codec(old, own)
    codes = torch.randint(old.cfg.codes, (1, 20, old.cfg.codebooks), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(grown.decode(codes), old.decode(codes), atol=1e-5)
    assert torch.allclose(grown.decode(codes + old.cfg.codes), own.decode(codes), atol=1e-5)


def test_a_voice_can_be_added_to_a_voice(small: tuple[Omni, Tokenizer]) -> None:
    model, tokenizer = small
    talker = model.talker
    for name in ("one", "two"):
        shares = torch.full((talker.cfg.codebooks, 32, talker.cfg.codes), 1 / talker.cfg.codes)
        talker = grown_talker(talker, own_talker(talker, name, 0, shares))
    assert talker.cfg.voice_codes == [[0, 32], [0, 32], [32, 64], [64, 96]]
    for voice, (first, last) in enumerate(talker.cfg.voice_codes):
        codes = say(talker, model.thinker, tokenizer, "Two dogs.", 1, voice).codes
        assert int(codes.min()) >= first and int(codes.max()) < last
        if voice < 2:
            assert torch.equal(codes, say(model.talker, model.thinker, tokenizer, "Two dogs.", 1, voice).codes)


def test_variants_go_through_all_characters() -> None:
    way = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 3, 4, 4, 4])
    assert starts_of(way) == [0, 3, 4, 8, 9]
    made = list(variants(torch.randn(24, 8), way))
    assert len(made) == 6 and torch.equal(made[2][1], way)
    for mel, moved in made:
        assert (
            len(mel) == len(moved)
            and moved.tolist() == sorted(moved.tolist())
            and set(moved.tolist()) == {0, 1, 2, 3, 4}
        )


def test_a_sentence_is_in_one_split() -> None:
    texts = [sentence(number % 40) for number in range(100)]
    splits = dealt(texts)
    assert {split: splits.count(split) > 0 for split in ("train", "valid", "test")} == dict.fromkeys(set(splits), True)
    assert all(len({s for t, s in zip(texts, splits, strict=True) if t == text}) == 1 for text in texts)


def test_equal_error_rate() -> None:
    assert equal_error_rate([0.8, 0.9, 0.7], [0.1, 0.2, 0.3])[0] == 0
    assert equal_error_rate([0.8, 0.2], [0.1, 0.5])[0] == 0.5


@pytest.mark.skipif(find_encoder() is None, reason="resemblyzer is not installed")
def test_the_encoder_hears_no_loudness() -> None:
    encoder, wave = SpeakerEncoder(), torch.from_numpy(spoken_like(1))
    one, other = encoder(wave * 0.02), encoder(wave * 0.01)
    assert one.shape == (256,) and float(one @ other) > 0.999 and float(one.norm()) == pytest.approx(1, abs=1e-4)
