"""Stage evaluate as a whole, on a few made-up samples and a small model of random weights."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from PIL import Image
from small_models import MEL, small_omni
from torch import nn

from muomni.audio_encoder import CTCHead
from muomni.checkpoint import make_card, save_checkpoint
from muomni.data.files import write_jsonl, write_manifest
from muomni.data.packing import pack_corpus
from muomni.data.shards import SPLITS, ShardWriter, read_shards, write_index
from muomni.errors import UserError
from muomni.evaluate.listening import SIGNALS
from muomni.mel import log_mel
from muomni.omni import load_omni
from muomni.tokenizer import Tokenizer
from muomni.train.c_vision_encoder import ContrastiveHeads
from pipelines import evaluate

TEXTS = ("There is a dog.", "It is a red apple.", "How many cats are there?")
EVALUATE = dict(seed=0, judge="off", speaker="hibari", ngram_order=3, context=16, stride=8, text_tokens=0, recordings=0)
EVALUATE |= dict(pictures=0, answers_per_task=0, dictation=0, answer_tokens=6, codec_sentences=2, talker_sentences=3)
EVALUATE |= dict(read_aloud=1, spoken_answers=1, swap_pairs=4)
PICTURES = [["name", "picture-name-0.png"], ["name", "picture-name-1.png"], ["scene", "picture-scene-0.png"]]


def tone(pitch: int) -> tuple[np.ndarray, bytes]:
    """A short sound, and as FLAC."""
    wave = (0.3 * np.sin(np.arange(9600 + 800 * pitch) * (0.05 + 0.02 * pitch))).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, wave, MEL.sample_rate, format="FLAC")
    return wave, file.getvalue()


def picture(colour: str) -> bytes:
    """A square of one colour as PNG."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(file, "PNG")
    return file.getvalue()


def shards(folder: Path, samples: Sequence[dict[str, Any]]) -> None:
    """The same samples in every split."""
    entries = {}
    for split in SPLITS:
        with ShardWriter(folder, split, 100) as writer:
            for number, members in enumerate(samples):
                writer.write(f"{split}-{number}", members)
        entries[split] = writer.shards
    write_index(folder, entries, [])


def talk(task: str, kind: str, question: str, answer: str, target: str, **members: bytes) -> dict[str, Any]:
    """A conversation's sample; `members` are ``png`` and ``flac``, the recording of the third text."""
    files = {f"0.{ending}": data for ending, data in members.items()}
    types = {"0.png": "image", "0.flac": "audio"}
    content: list[dict[str, str]] = [{"type": types[name], "member": name} for name in files]
    content += [{"type": "text", "text": question}] if question else []
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    return {
        "json": {"task": task, "kind": kind, "messages": messages, "targets": [target], "key": "k", "utterance": "2"},
        **files,
    }


@pytest.fixture
def project(tmp_path: Path, small: tuple[object, Tokenizer], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data, checkpoints and parameters that the stage reads."""
    monkeypatch.chdir(tmp_path)
    rows = [{"id": str(i), "source": "test", "text": text} for i, text in enumerate(TEXTS * 3)]
    tokens = tmp_path / "data/tokens"
    tokens.mkdir(parents=True)
    for split in SPLITS:
        write_jsonl(tokens / f"{split}.jsonl", rows)
    pack_corpus(tokens, small[1], tokens)
    (tmp_path / "data/corpus/speech").mkdir(parents=True)
    utterances, mels = [], []
    for number, text in enumerate(TEXTS):
        wave, flac = tone(number)
        (tmp_path / f"data/corpus/speech/{number}.flac").write_bytes(flac)
        about = {"text": text, "kind": "answer", "key": text, "seconds": len(wave) / 16000}
        row = about | {"id": str(number), "split": "test", "speaker": "hibari", "file": f"{number}.flac"}
        utterances.append(row)
        mel = log_mel(torch.from_numpy(wave), MEL).half().numpy()
        speaker = "hibari" if number else "espeak:en+m3"
        mels.append({"npy": mel, "json": about | {"speaker": speaker}})
    write_jsonl(tmp_path / "data/corpus/speech/utterances.jsonl", utterances)
    write_manifest(tmp_path / "data/corpus/speech", source="s", licences=[], counts={}, splits={}, bad=[])
    shards(tmp_path / "data/shards/mels", mels)
    images = [
        {
            "png": picture(colour),
            "json": {
                "kind": "single",
                "caption": f"a {name}",
                "objects": [{"name": name, "box": [0.1, 0.1, 0.9, 0.9]}],
                "key": name,
            },
        }
        for name, colour in (("dog", "brown"), ("apple", "red"))
    ]
    shards(tmp_path / "data/shards/images", images)
    red, brown = picture("red"), picture("brown")
    conversations = [
        talk("name", "what", "What is this?", "It is an apple.", "apple", png=red),
        talk("name", "what", "What is this?", "It is a dog.", "dog", png=brown),
        talk("scene", "background", "What color is the background?", "The background is blue.", "blue", png=red),
        talk("world", "alive", "Is a dog alive?", "Yes, a dog is alive.", "yes"),
        talk("dictation", "hibari", "Write down what you hear.", TEXTS[0], TEXTS[0], flac=tone(0)[1]),
        talk("dictation", "other", "Write down what you hear.", TEXTS[1], TEXTS[1], flac=tone(1)[1]),
        talk("read_aloud", "hibari", f"Read this aloud: {TEXTS[2]}", TEXTS[2], TEXTS[2]) | {"0.flac": tone(2)[1]},
        talk("spoken_scene", "what", "", "It is a dog.", "dog", png=brown, flac=tone(2)[1]),
    ]
    shards(tmp_path / "data/shards/conversations", conversations)
    train(tmp_path / "checkpoints", small[1])
    device = {"name": "cpu", "precision": "fp32", "threads": 0, "memory_gb": None}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"evaluate": EVALUATE, "device": device}))
    return tmp_path


def train(folder: Path, tokenizer: Tokenizer) -> None:
    """Checkpoints as the stages write them."""
    model = small_omni()
    cfg = model.cfg
    torch.manual_seed(1)
    folder.mkdir()
    tokenizer.save(folder / "tokenizer.model")
    heads = ContrastiveHeads(cfg.vision_encoder.d_model, cfg.thinker.d_model, 16)
    modules = {
        "thinker": model.thinker,
        "audio_encoder": nn.ModuleDict({"audio_encoder": model.audio_encoder, "ctc": CTCHead(cfg.audio_encoder)}),
        "vision_encoder": nn.ModuleDict({"vision_encoder": model.vision_encoder, "heads": heads}),
        "codec": model.codec,
        "talker": model.talker,
        "omni": model,
    }
    for name, module in modules.items():
        card = make_card(name, module, data={}, params={}, metrics={}, seconds=0.0)
        files = {"tokenizer.model": folder / "tokenizer.model"} if name == "omni" else {}
        save_checkpoint(folder / name, module.state_dict(), cfg.model_dump(mode="json"), card, files)


def test_every_file_is_written_and_a_second_run_writes_the_same(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def files() -> dict[str, bytes]:
        found = [*project.glob("metrics/**/*"), *project.glob("plots/**/*")]
        return {path.relative_to(project).as_posix(): path.read_bytes() for path in found if path.is_file()}

    evaluate.run()
    first = files()
    assert "thinker_perplexity" in capsys.readouterr().out
    for name in ("language", "hearing", "seeing", "speech", "omni", "summary", "held_out"):
        json.loads(first[f"metrics/{name}.json"])
    for name in ("accuracy", "scenes", "errors", "speech", "answers", "names"):
        assert first[f"plots/{name}.png"].startswith(b"\x89PNG")
    for name in ("recording-1.wav", "vocoder-0.wav", "codec-0.wav", "talker-2.wav", "spoken-spoken_scene-0.png"):
        assert f"metrics/samples/{name}" in first
    assert first["metrics/samples/spoken-spoken_scene-0.flac"] == tone(2)[1]  # the question, as it is in the shards
    assert "metrics/samples/spoken-read_aloud-0.flac" not in first  # of the answer
    asked = first["metrics/samples/spoken.tsv"].decode().splitlines()
    assert asked[0].startswith("task\tfile\tquestion\t") and f"\tspoken-spoken_scene-0.wav\t{TEXTS[2]}\t" in asked[2]
    kept = [line.split("\t") for line in first["metrics/samples/pictures.tsv"].decode().splitlines()[1:]]
    assert [row[:2] for row in kept] == PICTURES
    with Image.open(project / "metrics/samples/picture-name-1.png") as shown:
        assert shown.getpixel((5, 5)) == (165, 42, 42) and kept[1][3:5] == ["What is this?", "It is a dog."]
    assert len(first["metrics/samples/answers.tsv"].splitlines()) == 1 + 8
    # Two sentences, both as they were recorded and said, and after vocoder and codec.
    listened = sum(line.split("\t")[0] in SIGNALS for line in first["metrics/samples/speech.tsv"].decode().splitlines())
    assert first["metrics/samples/speech.html"].decode().count("<audio") == listened > 4
    summary = json.loads(first["metrics/summary.json"])
    assert summary["hearing_cer"]["n"] == 2 and summary["naming_in_words"]["n"] == 2
    assert summary["dictation_cer_all_voices"]["n"] == 2 and summary["swaps_passed"]["n"] == 6
    assert "talker_cer" not in summary and json.loads(first["metrics/speech.json"])["judge"] == "off"
    evaluate.run()
    second = files()
    assert second.keys() == first.keys() and [name for name in first if first[name] != second[name]] == []


def test_held_out_conversations_of_ones_own_have_a_figure_and_change_no_other(project: Path) -> None:
    evaluate.run()
    before = json.loads((project / "metrics/summary.json").read_text())
    omni = json.loads((project / "metrics/omni.json").read_text())
    assert not any(name.startswith("own") for name in before) and "own" not in omni
    folder = project / "data/shards/conversations"
    red, brown = picture("red"), picture("brown")
    own = [
        talk("own", "own", "And this?", "A thing that is red.", "A thing that is red.", png=red),
        talk("own", "own", "Say it.", "I will not.", "I will not.", png=brown, flac=tone(1)[1]),
        talk("own", "own", "Long. " * 400, "Too long.", "Too long."),
    ]
    second = talk("own", "own", "Why?", "Because I can.", "Because I can.")["json"]["messages"]
    own[0]["json"]["messages"] += second
    shards(folder, [*({n: v for n, v in s.items() if n != "__key__"} for s in read_shards(folder, "test")), *own])
    evaluate.run()
    after = json.loads((project / "metrics/summary.json").read_text())
    found = json.loads((project / "metrics/omni.json").read_text())["own"]
    assert found["left_out"] == 1 and "own" not in json.loads((project / "metrics/omni.json").read_text())["tasks"]
    model, tokenizer = load_omni(project / "checkpoints/omni", torch.device("cpu"))[:2]
    said = [message["content"][0]["text"] for s in own[:2] for message in s["json"]["messages"][1::2]]
    assert found["perplexity"]["n"] == sum(len(tokenizer.encode(text)) + 1 for text in said)  # and where each ends
    # Random weights: about as likely as any token, with the question or with another one.
    for name in ("own_perplexity", "own_perplexity_exchanged"):
        assert 0.2 < after[name]["value"] / model.cfg.thinker.vocab_size < 5, name
    assert {name: figure for name, figure in after.items() if not name.startswith("own")} == before
    assert "Because I can." in (project / "metrics/samples/answers.tsv").read_text()


def test_a_missing_checkpoint_and_an_unknown_voice_are_one_line(project: Path) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["evaluate"]["speaker"] = "nobody"
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(UserError, match=r"evaluate.speaker: no test recording of 'nobody'; there are espeak:en\+m3, h"):
        evaluate.run()
    (project / "checkpoints/talker").rename(project / "elsewhere")
    with pytest.raises(UserError, match="checkpoints/talker: no checkpoint folder here; run `dvc repro d-talker`"):
        evaluate.run()
    assert not (project / "metrics").exists() and not (project / "plots").exists()
