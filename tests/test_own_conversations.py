"""Conversations of one's own: the chat format, media that it names, bad lines one by one, and that they are trained."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from picture_folders import drawn, put
from PIL import Image
from remote_folders import s3_server, upload, web_server
from small_models import OMNI, VISION
from stage_tasks import LOOP, make_data, remade

from muomni.config import parse
from muomni.data.badsamples import BadSamples
from muomni.data.chat_format import Fitting, OwnConversation
from muomni.data.conversations import ConversationsConfig, write_conversations
from muomni.data.own_conversations import read_conversations
from muomni.data.shards import ShardWriter, read_index, read_shards, write_index
from muomni.data.tasks import TASKS
from muomni.errors import UserError
from muomni.omni import Omni
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer
from muomni.train.c_vision_encoder import VisionStageConfig, VisionTask
from muomni.train.e_omni import OmniStageConfig, TaskWeights

FITTING = Fitting(32, 16000, 3.0)


def sound(number: int, seconds: float = 1.0, rate: int = 16000, kind: str = "WAV") -> bytes:
    wave = np.random.default_rng(number).uniform(-0.4, 0.4, int(seconds * rate)).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=kind)
    return buffer.getvalue()


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content[0] if len(content) == 1 and isinstance(content[0], str) else [*content]}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def image(file: str) -> dict[str, str]:
    return {"type": "image", "image": file}


def audio(file: str) -> dict[str, str]:
    return {"type": "audio", "audio": file}


def good(number: int) -> list[dict[str, Any]]:
    """Messages of four kinds in turn."""
    return [
        [user(f"What is {number}?"), said(f"It is {number}."), user("And then?"), said(f"{number + 1} is.")],
        [user(image("pictures/a.png"), text("What is it?")), said("It is a dog.")],
        [{"role": "system", "content": "Be short."}, user(audio("sounds/q.flac")), said("Yes.")],
        [
            user(image("pictures/a.png"), image("pictures/b.jpg"), text("Which?"), audio("sounds/q.wav")),
            said("The first."),
            user(text("Why?"), image("pictures/b.jpg")),
            {"role": "assistant", "content": [text("It is"), text("red.")]},
        ],
    ][number % 4]


BAD: tuple[tuple[Any, str], ...] = (
    (b"{", "not JSON"),
    (b"\xff\xfe", "not JSON"),
    ([1], "no object with a list of messages"),
    ({"messages": []}, "no object with a list of messages"),
    ({"messages": [3]}, "messages[0]: no object"),
    ({"messages": [said("Hello.")]}, "messages[0]: role 'assistant', expected 'user'"),
    ({"messages": [user("a"), user("b")]}, "messages[1]: role 'user', expected 'assistant'"),
    ({"messages": [user("a"), said("b"), user("c")]}, "it does not end with the assistant's answer"),
    ({"messages": [user("a"), said(" ")]}, "messages[1]: empty"),
    (
        {"messages": [user("a"), {"role": "assistant", "content": [image("pictures/a.png")]}]},
        "messages[1].content[0]: the",
    ),
    ({"messages": [user({"type": "film", "film": "x"}), said("b")]}, "messages[0].content[0]: expected a part"),
    ({"messages": [user("x" * 30_000), said("b")]}, "messages[0].content[0]: 30,000 characters"),
    ({"messages": [user(image("none.png")), said("b")]}, "messages[0].content[0]: none.png: no such file"),
    ({"messages": [user(image("../a.png")), said("b")]}, "messages[0].content[0]: ../a.png: outside the folder"),
    ({"messages": [user(image("pictures/bad.png")), said("b")]}, "messages[0].content[0]: pictures/bad.png: damaged"),
    ({"messages": [user(audio("sounds/none.wav")), said("b")]}, "messages[0].content[0]: sounds/none.wav: no such"),
    ({"messages": [user(audio("sounds/cut.wav")), said("b")]}, "messages[0].content[0]: sounds/cut.wav: "),
    ({"messages": [user(audio("sounds/long.wav")), said("b")]}, "messages[0].content[0]: sounds/long.wav: 5.0 s, more"),
    ({"messages": [user(audio("sounds/still.wav")), said("b")]}, "messages[0].content[0]: sounds/still.wav: there is"),
    ({"messages": [user(audio("sounds/empty.wav")), said("b")]}, "messages[0].content[0]: sounds/empty.wav: empty"),
    ({"messages": [user("a"), said("b")] * 60}, "120 messages, more than 100"),
)


def write(folder: Path, number: int, every: int) -> dict[str, str]:
    """A folder of two files of lines; returns the reasons by item."""
    for name, data in {
        "pictures/a.png": drawn(1),
        "pictures/b.jpg": drawn(2, "JPEG"),
        "pictures/bad.png": drawn(3)[:80],
        "sounds/q.wav": sound(1),
        "sounds/q.flac": sound(2, 1.5, 22050, "FLAC"),
        "sounds/cut.wav": sound(3)[:9000],
        "sounds/long.wav": sound(4, 5.0),
        "sounds/empty.wav": b"",
    }.items():
        put(folder / name, data)
    soundfile.write(folder / "sounds/still.wav", np.zeros(8000), 16000)
    reasons, lines = {}, {"one.jsonl": [], "more/two.jsonl": []}  # type: dict[str, str], dict[str, list[bytes]]
    for n in range(number):
        name = "one.jsonl" if n < number * 2 // 3 else "more/two.jsonl"
        line: Any = {"messages": good(n), "id": n}
        if n % every == every - 1:
            line, reason = BAD[n // every % len(BAD)]
            reasons[f"{name}:{len(lines[name]) + 1}"] = reason
        lines[name].append(line if isinstance(line, bytes) else json.dumps(line).encode())
    for name, rows in lines.items():
        put(folder / name, b"\n".join(rows) + b"\n")
    return reasons


@pytest.mark.parametrize(("number", "every"), [(300, 100), (300, 9)])
def test_bad_lines_are_set_aside_and_none_is_lost(tmp_path: Path, number: int, every: int) -> None:
    reasons = write(tmp_path / "in", number, every)
    bad = BadSamples(1.0, "x")
    found, origins = read_conversations("jsonl", str(tmp_path / "in"), FITTING, 0, bad)
    told = {entry["item"]: entry["reason"] for entry in bad.items}
    assert told.keys() == reasons.keys() and len(bad) == len(reasons)
    for item, reason in reasons.items():
        assert told[item].startswith(reason), (item, told[item], reason)
    assert len(found) == len({item.id for item in found}) == number - len(reasons)
    assert (origins[0].items, origins[0].bad) == (number - len(reasons), len(reasons))
    assert origins[0].files >= 2 + 4
    if every == 9:
        assert len({*reasons.values()}) >= len(BAD) - 3


def test_messages_keep_their_order_and_media_are_made_as_the_model_knows_them(tmp_path: Path) -> None:
    write(tmp_path / "in", 8, 1000)
    found, _ = read_conversations("jsonl", str(tmp_path / "in"), FITTING, 0, BadSamples(0, "x"))
    items: dict[str, OwnConversation] = {item.id: item for item in found}
    ruled, many = items["one.jsonl:3"], items["one.jsonl:4"]
    assert ruled.messages[0]["content"] == [{"type": "audio", "member": "0.flac"}, text("Be short.")]
    members = [part.get("member") for message in many.messages for part in message["content"]]
    assert members == ["0.png", "1.png", None, "0.flac", None, None, "2.png", None]
    assert many.messages[-1]["content"] == [text("It is\nred.")]
    assert many.members["1.png"] == many.members["2.png"] != many.members["0.png"]
    for name, data in many.members.items():
        if name.endswith(".png"):
            assert Image.open(io.BytesIO(data)).size == (32, 32)
    wave, rate = soundfile.read(io.BytesIO(ruled.members["0.flac"]))
    assert rate == 16000 and wave.ndim == 1 and len(wave) == pytest.approx(24000, abs=200)
    assert np.abs(wave).max() == pytest.approx(0.9, abs=0.01)


def test_the_same_conversations_from_here_from_s3_and_from_the_web(tmp_path: Path) -> None:
    write(tmp_path / "in", 40, 9)
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as client, web_server(tmp_path) as web:
        upload(client, tmp_path / "in", "bucket", "in")
        results = []
        for address in (str(tmp_path / "in"), "s3://bucket/in", f"{web}/in"):
            bad = BadSamples(1.0, "x")
            results.append((read_conversations("jsonl", address, FITTING, 0, bad)[0], bad.items))
    assert results[0] == results[1] == results[2]


def config(**changes: Any) -> ConversationsConfig:
    none = dict.fromkeys(TASKS, 0)
    raw = {"train": none | {"caption": 6}, "valid": none | {"caption": 2}, "test": none | {"caption": 2}}
    return parse(ConversationsConfig, raw | {"turns": 1, "per_shard": 50} | changes, "conversations")


def write_captioned(folder: Path) -> None:
    """Image shards of pictures with captions alone."""
    shards = {}
    for split in ("train", "valid", "test"):
        with ShardWriter(folder, split, 100) as writer:
            for n in range(4):
                buffer = io.BytesIO()
                colour = ((n * 60, 0, 200), (250, n * 60, 0), (0, 90, n * 60))[("train", "valid", "test").index(split)]
                Image.new("RGB", (32, 32), colour).save(buffer, "PNG")
                captions = [f"Picture number {n}.", f"A dog and {n}."]
                about = {"kind": "captioned", "layout": "captioned", "background": None, "objects": []}
                about |= {"caption": captions[0], "captions": captions, "key": f"train:{n}"}
                writer.write(f"{split}-{n}", {"png": buffer.getvalue(), "json": about})
        shards[split] = writer.shards
    write_index(folder, shards, [])


def made(tmp_path: Path, cfg: ConversationsConfig, name: str = "made") -> dict[str, Any]:
    if not (tmp_path / "images").exists():
        write_captioned(tmp_path / "images")
        put(tmp_path / "speech" / "utterances.jsonl", b"")
        put(tmp_path / "concepts.jsonl", b"")
    places = (tmp_path / "images", tmp_path / "speech", tmp_path / "concepts.jsonl", tmp_path / name)
    return write_conversations(cfg, 0, *places, FITTING)


def test_shards_hold_them_beside_the_generated_ones_and_weights_are_of_training_alone(tmp_path: Path) -> None:
    reasons = write(tmp_path / "in", 270, 9)
    text = f"- {{source: jsonl, path: {tmp_path / 'in'}, weight: 2, name: mine, licence: CC0}}\n"
    (tmp_path / "mixture.yaml").write_text(text)
    cfg = config(source="mixture", path=str(tmp_path / "mixture.yaml"), max_bad_fraction=0.2)
    index = made(tmp_path, cfg)
    assert index == read_index(tmp_path / "made")
    own = {
        split: [s["json"] for s in read_shards(tmp_path / "made", split) if s["json"]["task"] == "own"]
        for split in ("train", "valid", "test")
    }
    assert {split: tasks.get("own", 0) for split, tasks in index["tasks"].items()} == {
        s: len(r) for s, r in own.items()
    }
    assert len(own["train"]) % 2 == 0 and len(own["train"]) / 2 + len(own["valid"]) + len(own["test"]) == 240
    assert own["valid"] and own["test"] and index["splits"]["train"]["samples"] == len(own["train"]) + 6
    keys = {split: {row["key"] for row in rows} for split, rows in own.items()}
    assert not keys["train"] & (keys["valid"] | keys["test"]) and not keys["valid"] & keys["test"]
    assert len({row["line"] for rows in own.values() for row in rows}) == sum(map(len, own.values()))
    assert len(index["bad"]) == len(reasons) == 30
    assert {entry["item"] for entry in index["bad"]} == {f"mine/{item}" for item in reasons}
    origin = index["origins"][0]
    assert (origin["items"], origin["bad"], origin["weight"], origin["licence"]) == (240, 30, 2.0, "CC0")
    assert made(tmp_path, cfg, "again") == index
    with pytest.raises(
        UserError, match=r"conversations.path: 30 of 270 samples are bad .*max_bad_fraction.*the first is mine/"
    ):
        made(tmp_path, cfg.model_copy(update={"max_bad_fraction": 0.1}), "third")


def test_the_same_questions_are_in_one_split_whatever_the_answers(tmp_path: Path) -> None:
    rows = [
        {"messages": [user(f"Question  {n // 2}?" if n % 2 else f"question {n // 2}?"), said(f"{n}")]}
        for n in range(400)
    ]
    put(tmp_path / "in/all.jsonl", "\n".join(map(json.dumps, rows)).encode())
    found, _ = read_conversations("jsonl", str(tmp_path / "in"), FITTING, 0, BadSamples(0, "x"))
    splits = [item.split for item in found]
    assert splits[::2] == splits[1::2] and len(found) == 400
    assert {split: splits[::2].count(split) for split in ("valid", "test")} == {
        "valid": pytest.approx(8, abs=7),
        "test": pytest.approx(12, abs=9),
    }
    other, _ = read_conversations("jsonl", str(tmp_path / "in"), FITTING, 1, BadSamples(0, "x"))
    assert [item.split for item in other] != splits


def test_the_same_by_any_number_of_workers(tmp_path: Path) -> None:
    write(tmp_path / "in", 300, 9)
    results = []
    for workers in (1, 2, 3, 7):
        bad = BadSamples(1.0, "x")
        results.append((read_conversations("jsonl", str(tmp_path / "in"), FITTING, 0, bad, workers)[0], bad.items))
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "jsonl"}, "needs path"),
        ({"source": "jsonl", "path": "/no/such"}, "conversations.path: /no/such: no such folder"),
        ({"source": "jsonl", "path": "pictures"}, "holds no .jsonl"),
    ],
)
def test_a_missing_folder_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "pictures" / "a.png", drawn(1))
    with pytest.raises(UserError, match=message):
        made(tmp_path, config(**changes))


def test_stage_e_learns_from_them(tmp_path: Path, small: tuple[Omni, Tokenizer]) -> None:
    """Several pictures and a recording in one conversation, and questions that ask on."""
    data = make_data(tmp_path / "data")
    write(tmp_path / "in", 8, 1000)
    own, _ = read_conversations("jsonl", str(tmp_path / "in"), FITTING, 0, BadSamples(0, "x"))
    index = read_index(data / "conversations")
    with ShardWriter(data / "conversations", "train", 100) as writer:
        for number, item in enumerate(own):
            writer.write(f"train-{number}-own", {"json": item.about(), **item.members})
    splits = {split: entry["shards"] for split, entry in index["splits"].items()} | {"train": writer.shards}
    write_index(data / "conversations", splits, [])
    cfg = OmniStageConfig(
        **LOOP,
        weights=dict.fromkeys(TaskWeights.model_fields, 0.0) | {"own": 1.0},
        freeze_vision=True,
        freeze_audio=True,
        text_every=0,
        text_batch=2,
        text_length=16,
        talker_every=0,
        talker_batch=2,
        code_noise=0.1,
        state_dropout=0.5,
        apart=1.0,
        valid_answers=2,
    )
    task = remade(data, small[1], cfg)
    assert task.left_out + len(task.train) == 8 and len(task.train) >= 4
    assert all(not sample.branches.any() for sample in task.train)
    loss, _ = task.loss(task.batch(0, 0, torch.Generator().manual_seed(0)), 0)
    assert torch.isfinite(loss)


def test_stage_c_learns_from_captions_alone(tmp_path: Path, small: tuple[Omni, Tokenizer]) -> None:
    write_captioned(tmp_path / "images")
    cfg = VisionStageConfig(
        **LOOP, embedding=16, shift=2, colour=0.05, region_weight=1.0, patch_weight=0.5, valid_pictures=4
    )
    torch.manual_seed(0)
    task = VisionTask(cfg, VISION, Thinker(OMNI.thinker), small[1], tmp_path / "images", 0)
    optimiser = torch.optim.AdamW([p for m in task.modules.values() for p in m.parameters()], lr=3e-3)
    losses = []
    for step in range(40):
        loss, values = task.loss(task.batch(step, 0, torch.Generator().manual_seed(step)), step)
        assert all(np.isfinite(float(value)) for value in values.values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    assert task.evaluate().keys() >= {"recall_1"}
    task.samples(0, tmp_path)
