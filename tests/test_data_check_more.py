"""`muomni data check` and `add` of conversations and of mixtures."""

import json
from pathlib import Path
from typing import Any

from own_corpora import COLUMNS, CORPORA, sentence, sound, tone
from picture_folders import drawn, put
from test_data_check import check, items, place
from test_own_conversations import BAD, audio, config, image, said, text, user, write
from test_own_conversations import made as made_shards
from test_speech_mixtures import folder_of

from muomni.check.layouts import found_in
from muomni.cli import main
from muomni.data.speech_corpus import build_speech
from muomni.params import read_params
from muomni.tokenizer import train_tokenizer

assert place  # a fixture


def talks(folder: Path, rows: list[Any]) -> None:
    put(folder / "talks.jsonl", "".join(json.dumps({"messages": row}) + "\n" for row in rows).encode())


def test_what_the_conversations_stage_sets_aside_is_told_before(place: Path) -> None:
    reasons = write(place / "own", 120, 4)
    assert [(one.what, one.source) for one in found_in(str(place / "own"))] == [("conversations", "jsonl")]
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("max_seconds: 12.0", "max_seconds: 3.0"))
    code, problems, section = check(place / "own")
    told = {entry["item"]: entry["reason"] for entry in problems["cannot be used"]["worst"]}
    assert code == 1 and told.keys() == reasons.keys() and len({*reasons.values()}) >= len(BAD) - 4
    assert all(told[item].startswith(reason) for item, reason in reasons.items())
    assert section["what"] == "conversations" and section["items"] == 120
    assert section["facts"]["conversations"] == f"{120 - len(reasons)} of 120 can be used"
    cfg = config(source="jsonl", path=str(place / "own"), max_bad_fraction=0.5)
    index = made_shards(place, cfg)
    splits = {row[0]: row[1] for row in section["tables"]["splits"][1:]}
    assert splits == {split: tasks.get("own", 0) for split, tasks in index["tasks"].items()}
    assert sorted(told) == sorted(entry["item"] for entry in index["bad"])


def test_conversations_that_spoil_a_training_are_named(place: Path) -> None:
    many = "it was late and nobody had seen the old grey house behind the last hill before"
    rows = [[user(f"Tell me about number {n}."), said(f"Number {n} is {n}.")] for n in range(60)]
    rows += [[user(f"{many} {n % 7} {n}."), said(f"{many}.")] for n in range(60)]
    rows.append([user("Tell me about number 3."), said("Number 3 is 3.")])
    rows.append([user("Кто это? Это кот и большой дом."), said("Это кот.")])
    rows.append([user("word " * 900), said("Long.")])
    rows.append([user(image("a.png"), audio("q.wav"), text("Look and listen.")), said("Yes.")])
    talks(place / "own", rows)
    put(place / "own/a.png", drawn(1))
    sound(place / "own/q.wav", wave=tone(2))
    (place / "own/LICENSE").write_text("CC0 1.0\n")
    model = place / "tokenizer.model"
    train_tokenizer([f"{sentence(n)} Tell me about number {n}." for n in range(1000)], 330, model)
    code, problems, section = check(place / "own", "--tokenizer", model, "--page", "page.html")
    assert code == 1 and items(problems, "same item twice") == {"talks.jsonl:121"}
    assert items(problems, "too long for the context") == {"talks.jsonl:123"}
    assert items(problems, "other letters than expected") == {"talks.jsonl:122"}
    near = items(problems, "near copy of a held-out item")
    assert near and near <= {f"talks.jsonl:{n}" for n in range(61, 121)}
    assert section["facts"]["pictures"] == "1" and section["facts"]["recordings"] == "1"
    assert section["facts"]["licence"] == "LICENSE: CC0 1.0" and "no licence is stated" not in problems
    page = Path("page.html").read_text()
    assert "<h2>Conversations: jsonl</h2>" in page and "too long for the context" in page and "<svg" in page


def test_a_mixture_of_speech_is_checked_as_the_stage_reads_it(place: Path) -> None:
    for kind in ("librispeech", "common_voice"):
        CORPORA[kind](place / kind)
    wrong = CORPORA["manifest"](place / "manifest")
    folder_of(place / "a", "", 200)
    folder_of(place / "b", "", 210)  # twenty sentences of the other, and the very same sounds
    columns = json.dumps(COLUMNS).replace('"', "")
    text = "".join(f"- {{source: {kind}, path: {place}/{kind}}}\n" for kind in ("librispeech", "common_voice"))
    text += f"- {{source: manifest, path: {place}/manifest/list.jsonl, columns: {columns}, weight: 0.1, name: few}}\n"
    text += f"- {{source: folder, path: {place}/a, name: a, licence: CC0}}\n"
    text += f"- {{source: folder, path: {place}/b, name: b}}\n"
    (place / "speech.yaml").write_text(text)
    code, problems, section = check("--source", "speech-mixture", "--path", place / "speech.yaml")
    params = read_params("params.yaml")
    changes = {"source": "mixture", "path": str(place / "speech.yaml"), "max_bad_fraction": 1.0, "workers": 1}
    (place / "speech.yaml").write_text(text.replace("weight: 0.1, ", ""))  # what a weight leaves out is checked as well
    made = build_speech(params.speech.model_copy(update=changes), "unread", "unread", params.seed, place / "out")
    told = sorted((entry["item"], entry["reason"]) for entry in problems["cannot be used"]["worst"])
    assert code == 1 and told == sorted((entry["item"], entry["reason"]) for entry in made["bad"])
    assert sum(item.startswith("few/") for item, _ in told) == len(wrong)
    assert section["items"] == made["counts"]["utterances"] + len(made["bad"]) + len(made["repeats"])
    splits = {row[0]: row[1] for row in section["tables"]["splits"][1:]}
    assert splits == {split: about["utterances"] for split, about in made["splits"].items()}
    assert problems["held-out sentence in training"]["count"] == len(made["repeats"]) > 0
    assert "same item in two splits" in problems and problems["no licence is stated"]["count"] == 4
    assert [row[0] for row in section["tables"]["sources"][1:]] == ["librispeech-1", "common_voice-2", "few", "a", "b"]
    alone = "- {source: embedded}\n"
    (place / "speech.yaml").write_text(alone)
    assert main(["data", "check", "--source", "speech-mixture", "--path", str(place / "speech.yaml")]) == 2


def test_add_sets_what_they_need(place: Path) -> None:
    talks(place / "talks", [[user(f"Number {n}?"), said(f"It is {n}.")] for n in range(40)])
    assert main(["data", "add", str(place / "talks"), "--as", "talks"]) == 0
    made = read_params("profiles/talks.yaml")
    assert (made.conversations.source, made.conversations.path) == ("jsonl", str(place / "talks"))
    assert made.e_omni.weights.own == 0.2 and made.e_omni.weights.name == 0.15
    folder_of(place / "a", "", 0, 200)
    folder_of(place / "b", "bert", 300, 150)
    (place / "speech.yaml").write_text(
        f"- {{source: folder, path: {place}/a, name: anna}}\n- {{source: folder, path: {place}/b}}\n"
    )
    mixture = ["--source", "speech-mixture", "--path", str(place / "speech.yaml")]
    assert main(["data", "add", *mixture, "--as", "mixed"]) == 0
    made = read_params("profiles/mixed.yaml")
    assert made.speech.source == "mixture" and made.talker.voices == ["anna", "bert"] and made.d_codec.speaker == ""
    assert made.conversations.train.spoken_scene == 0
    with (place / "speech.yaml").open("a") as file:
        file.write("- {source: embedded}\n")
    assert main(["data", "add", *mixture, "--as", "more"]) == 0
    made = read_params("profiles/more.yaml")
    assert made.talker.voices == ["hibari", "anna", "bert"] and made.conversations.train.spoken_scene > 0
    assert made.evaluate.speaker == "hibari"
