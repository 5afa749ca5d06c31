"""Conversations: the form of samples, right answers, and that nothing held out is in training."""

import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from muomni.config import parse
from muomni.data.concepts import Concept, select_concepts
from muomni.data.conversations import ConversationsConfig, write_conversations
from muomni.data.grammar import QA, content_key, is_right, words_of
from muomni.data.scenes import Composer, Drawing, combinations_of
from muomni.data.shards import SPLITS, ShardWriter, read_shards, write_index
from muomni.data.speech_corpus import SpeechConfig, embedded_utterances
from muomni.data.splits import TRAIN_ONLY, combination_split
from muomni.data.tasks import READ_PROMPTS, TASKS
from muomni.errors import UserError

SEED = 5
SPEECH = {
    "source": "embedded",
    "path": "",
    "sentences": 1500,
    "speed_min": 1.0,
    "speed_max": 1.0,
    "prose": 0,
    "espeak_fraction": 0.2,
    "espeak_voices": ["en-us+f2"],
    "sample_rate": 16000,
    "max_seconds": 12.0,
    "max_bad_fraction": 0.0,
    "workers": 1,
}


def counts(number: int, **changes: int) -> dict[str, int]:
    return {task: number for task in TASKS} | changes


def config(**changes: Any) -> ConversationsConfig:
    raw = {"train": counts(300), "valid": counts(10), "test": counts(60), "turns": 3, "per_shard": 500}
    return parse(ConversationsConfig, raw | changes, "conversations")


def write_pictures(folder: Path, concepts: tuple[Concept, ...]) -> None:
    """Image shards with real descriptions; each drawing is a plain square of its own colour."""
    draw = random.Random(0)
    colours = [tuple(draw.randrange(256) for _ in range(3)) for _ in concepts]
    squares = [Image.new("RGBA", (20, 20), (*colour, 255)) for colour in colours]
    drawings = {concept.name: [Drawing(square)] for concept, square in zip(concepts, squares, strict=True)}
    composer = Composer(drawings, 32)
    shards = {}
    for split, number in zip(SPLITS, (300, 60, 150), strict=True):
        allowed = combinations_of(concepts, split, SEED)
        with ShardWriter(folder, split, 1000) as writer:
            for index in range(number):
                rng = random.Random(f"{split}{index}")
                if index % 2:
                    picture, about = composer.scene(allowed, rng)
                else:
                    picture, about = composer.single(rng.choice(concepts), rng)
                buffer = io.BytesIO()
                picture.save(buffer, "PNG")
                writer.write(f"{split}-{index:06d}", {"png": buffer.getvalue(), "json": about})
        shards[split] = writer.shards
    write_index(folder, shards, [])


def write_speech(folder: Path, concepts: tuple[Concept, ...]) -> None:
    """A speech corpus with real sentences; each recording is a few samples of noise of its own."""
    rows = []
    for number, item in enumerate(embedded_utterances(parse(SpeechConfig, SPEECH, "speech"), concepts, SEED)):
        path = folder / item.file
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, 64)
        soundfile.write(path, noise, 16000, subtype="PCM_16")
        row = {"id": item.id, "split": item.split, "text": item.text, "speaker": item.speaker}
        rows.append(row | {"kind": item.kind, "key": item.key, "seconds": 0.004, "file": item.file})
    (folder / "utterances.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corpora of few concepts, so that held-out combinations meet many others, and their conversations."""
    root, concepts = tmp_path_factory.mktemp("world"), select_concepts(40, 24)
    write_pictures(root / "images", concepts)
    write_speech(root / "speech", concepts)
    rows = [{"name": concept.name, "scene": concept.scene} for concept in concepts]
    (root / "concepts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write(root, config(), "made")
    return root


def write(root: Path, cfg: ConversationsConfig, name: str) -> dict[str, Any]:
    return write_conversations(cfg, SEED, root / "images", root / "speech", root / "concepts.jsonl", root / name)


def samples(root: Path, split: str) -> list[dict[str, Any]]:
    return list(read_shards(root / "made", split))


def texts(about: dict[str, Any]) -> list[str]:
    """What is read and said in a sample, without the words that ask for reading aloud."""
    found = []
    for message in about["messages"]:
        for part in message["content"]:
            if part["type"] == "text":
                text = part["text"]
                for prompt in READ_PROMPTS:
                    text = text.removeprefix(prompt.format(text=""))
                found.append(text)
    return found


def utterances(root: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in (root / "speech" / "utterances.jsonl").read_text().splitlines()]
    return {row["id"]: row for row in rows}


# Nothing held out is in training


def test_training_says_and_hears_nothing_that_is_held_out(world: Path) -> None:
    spoken = utterances(world)
    for sample in samples(world, "train"):
        about = sample["json"]
        heard = [spoken[about["utterance"]]["text"]] if "utterance" in about else []
        for text in texts(about) + heard:
            assert combination_split(content_key(text), SEED) == "train", (about["task"], text)


def test_pictures_and_recordings_of_a_split_stay_in_it(world: Path) -> None:
    spoken = utterances(world)
    media: dict[str, set[bytes]] = {}
    for split in SPLITS:
        for sample in samples(world, split):
            about = sample["json"]
            media.setdefault(split, set()).update(value for value in sample.values() if isinstance(value, bytes))
            if "picture" in about:
                assert about["picture"].startswith(split)
            if "utterance" in about:
                assert spoken[about["utterance"]]["split"] == split
    assert not media["train"] & (media["valid"] | media["test"]) and not media["valid"] & media["test"]


def test_no_held_out_sentence_or_scene_has_a_copy_in_training(world: Path) -> None:
    def copies(split: str) -> set[str]:
        """Normalised texts of what is about held-out things: what every split needs is not."""
        found = [text for sample in samples(world, split) for text in texts(sample["json"])]
        return {" ".join(words_of(text)) for text in found if not content_key(text).startswith(TRAIN_ONLY)}

    def scenes(split: str) -> set[str]:
        keys = {sample["json"]["key"] for sample in samples(world, split) if "0.png" in sample}
        return {key for key in keys if not key.startswith(TRAIN_ONLY)}

    for split in ("valid", "test"):
        # A test picture may be asked a question of training ("Is there a dog?"), but never the other way round.
        held_out = {text for text in copies(split) if combination_split(content_key(text), SEED) == split}
        assert held_out and not held_out & copies("train")
        assert scenes(split) and not scenes(split) & scenes("train")


# What the samples are


def test_every_task_is_there_in_its_form(world: Path) -> None:
    index = json.loads((world / "made" / "index.json").read_text())
    assert index["tasks"]["train"] == counts(300)
    assert all(0 < number <= 60 for number in index["tasks"]["test"].values())
    wanted = {
        "name": ("image", "text"),
        "caption": ("image", "text"),
        "single": ("image", "text"),
        "scene": ("image", "text"),
        "world": ("text",),
        "dictation": ("audio", "text"),
        "read_aloud": ("text",),
        "spoken_scene": ("image", "audio"),
        "spoken_world": ("audio",),
    }
    spoken = utterances(world)
    for sample in samples(world, "train"):
        about = sample["json"]
        user, assistant, *further = about["messages"]
        assert not further or about["task"] in ("single", "scene")
        assert tuple(part["type"] for part in user["content"]) == wanted[about["task"]]
        for part in user["content"]:
            assert part["type"] == "text" or part["member"] in sample
        assert assistant["speech"] is (about["task"] in ("read_aloud", "spoken_scene", "spoken_world"))
        answer = assistant["content"][0]["text"]
        if about["task"] in ("dictation", "read_aloud"):
            row = spoken[about["utterance"]]
            assert about["targets"] == [row["text"]] == [answer]
            assert sample["0.flac"] == (world / "speech" / row["file"]).read_bytes()
        else:
            assert is_right(QA(about["kind"], "", "", tuple(about["targets"]), ""), answer), about
        if about["task"] == "read_aloud":
            assert assistant["speech_member"] == "0.flac" and row["speaker"] == "hibari"
            assert row["text"] in user["content"][0]["text"]


def test_only_training_asks_more_about_a_picture_and_each_time_something_else(world: Path) -> None:
    turns = []
    for sample in samples(world, "train"):
        about = sample["json"]
        if about["task"] == "scene":
            turns.append(1 + len(about["more"]))
        kinds = [about["kind"], *(qa["kind"] for qa in about["more"])]
        assert len(set(kinds)) == len(kinds)
        assert len(about["messages"]) == 2 * len(kinds)
        for qa, question, answer in zip(about["more"], about["messages"][2::2], about["messages"][3::2], strict=True):
            assert question["content"] == [{"type": "text", "text": qa["question"]}]
            assert is_right(QA(qa["kind"], "", "", tuple(qa["targets"]), ""), answer["content"][0]["text"]), about
    assert set(turns) == {1, 2, 3}
    for split in ("valid", "test"):
        assert all(len(sample["json"]["messages"]) == 2 for sample in samples(world, split))


def test_spoken_questions_are_the_questions_that_are_answered(world: Path) -> None:
    spoken, pictures = utterances(world), {}
    for sample in read_shards(world / "images", "train"):
        pictures[sample["__key__"]] = sample
    for sample in samples(world, "train"):
        about = sample["json"]
        if about["task"] != "spoken_scene":
            continue
        question = spoken[about["utterance"]]
        picture = pictures[about["picture"]]
        names = {item["name"] for item in picture["json"]["objects"]}
        assert question["kind"] == "question" and sample["0.png"] == picture["png"]
        if about["kind"] == "exists":
            name = content_key(question["text"]).split("|")[1]
            assert about["targets"] == ["yes" if name in names else "no"]


def test_a_question_has_no_favourite_answer(world: Path) -> None:
    said = [
        sample["json"]["targets"][0]
        for sample in samples(world, "train")
        if sample["json"]["task"] in ("scene", "spoken_scene") and sample["json"]["kind"] == "exists"
    ]
    assert len(said) > 30
    assert 0.3 < said.count("yes") / len(said) < 0.7


def test_bytes_are_the_same_again_and_tasks_do_not_disturb_each_other(world: Path) -> None:
    again = write(world, config(), "again")
    assert again == json.loads((world / "made" / "index.json").read_text())
    less = write(world, config(train=counts(300, world=0, scene=0)), "less")
    assert less["tasks"]["train"]["scene"] == 0

    def of(folder: str) -> set[str]:
        found = [sample["json"] for sample in read_shards(world / folder, "train")]
        return {json.dumps(about, sort_keys=True) for about in found if about["task"] not in ("world", "scene")}

    assert of("less") == of("made")


# What is missing or cannot be


def test_missing_material_is_one_line(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro image-shards"):
        write_conversations(
            config(), SEED, tmp_path / "images", world / "speech", world / "concepts.jsonl", tmp_path / "out"
        )
    with pytest.raises(UserError, match="dvc repro corpus-speech"):
        write_conversations(config(), SEED, world / "images", tmp_path, world / "concepts.jsonl", tmp_path / "out")
    assert not (tmp_path / "out" / "index.json").exists()


def test_a_task_without_material_says_so(world: Path, tmp_path: Path) -> None:
    (tmp_path / "speech").mkdir()
    rows = [row for row in utterances(world).values() if row["kind"] != "question"]
    (tmp_path / "speech" / "utterances.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "speech" / "audio").symlink_to(world / "speech" / "audio")
    arguments = (world / "images", tmp_path / "speech", world / "concepts.jsonl", tmp_path / "out")
    with pytest.raises(UserError, match=r"conversations\.train\.spoken_scene: .*set it to 0"):
        write_conversations(config(), SEED, *arguments)
    without = counts(10, spoken_scene=0, spoken_world=0)
    index = write_conversations(config(train=without, valid=without, test=without), SEED, *arguments)
    assert index["tasks"]["train"] == without


def test_unknown_tasks_and_negative_counts_are_refused() -> None:
    with pytest.raises(UserError, match="conversations: train.sing: unknown key"):
        config(train=counts(1) | {"sing": 1})
    with pytest.raises(UserError, match="conversations: test.world"):
        config(test=counts(1, world=-1))
