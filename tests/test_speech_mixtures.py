"""Several sources of speech together: splits by sentence, weights of training alone, speakers, and what is told."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from own_corpora import CORPORA, GOOD, sentence, sound
from remote_folders import s3_server, upload
from test_speech_corpus import write_concepts
from test_speech_sources import RAW

from muomni.config import parse
from muomni.data.files import sha256_folder
from muomni.data.mel_shards import write_mel_shards
from muomni.data.own_speech import key_of
from muomni.data.shards import read_shards
from muomni.data.speech_corpus import SpeechConfig, build_speech
from muomni.data.utterances import read_utterances
from muomni.errors import UserError
from muomni.params import read_params
from pipelines import sources

PARTS = """
- {source: embedded, name: drawn, weight: 2}
- {source: ljspeech, path: IN/ljspeech, name: lj, speaker: anna, weight: 2.5}
- {source: librispeech, path: IN/librispeech, name: libri, licence: CC-BY-4.0, prefix: l-}
- {source: common_voice, path: IN/common_voice, name: cv.17, weight: 0.5}
- {source: manifest, path: IN/manifest/list.jsonl, columns: {audio: sound, text: said, speaker: who}}
"""


def config(folder: Path, text: str, **more: object) -> SpeechConfig:
    (folder / "speech.yaml").write_text(text.replace("IN", str(folder)))
    values = {**RAW, "source": "mixture", "path": str(folder / "speech.yaml"), "sentences": 16, **more}
    return parse(SpeechConfig, values, "speech")


def build(folder: Path, text: str, out: str = "out", **more: object) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    concepts = folder / "concepts.jsonl"
    cfg = config(folder, text, **more)
    made = build_speech(cfg, concepts if concepts.exists() else "unread", "unread", 0, folder / out)
    return made, read_utterances(folder / out)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, str]]]:
    """A corpus of each layout with bad items of every kind, and those by corpus with the reasons."""
    folder = tmp_path_factory.mktemp("corpora")
    write_concepts(folder)
    return folder, {kind: write(folder / kind) for kind, write in CORPORA.items()}


def test_every_source_counts_and_nothing_is_lost(corpora: tuple[Path, dict[str, dict[str, str]]]) -> None:
    pytest.importorskip("hibari")
    folder, wrong = corpora
    made, rows = build(folder, PARTS)
    origins = {origin["name"]: origin for origin in made["origins"]}
    assert [o["source"] for o in made["origins"]] == ["embedded", *CORPORA] and origins["drawn"]["state"] == ""
    assert [o["weight"] for o in made["origins"]] == [2, 2.5, 1, 0.5, 1]
    for name, kind in (
        ("lj", "ljspeech"),
        ("libri", "librispeech"),
        ("cv.17", "common_voice"),
        ("manifest-5", "manifest"),
    ):
        mine = [entry for entry in made["bad"] if entry["item"].startswith(f"{name}/")]
        # Of those that a weight leaves out nobody knows whether they are bad.
        assert len(mine) == origins[name]["bad"] and (len(mine) == len(wrong[kind]) or name == "cv.17"), (name, mine)
        assert {reason for bad in mine for reason in wrong[kind].values() if reason in bad["reason"]}
    assert len(made["bad"]) == sum(origin["bad"] for origin in made["origins"])
    listed = 16 + sum(len(bad) for bad in wrong.values()) + (1 + 3 + 3 + 1) * GOOD + 1  # LibriSpeech says one twice
    kept = sum(origin["items"] for origin in made["origins"])
    assert listed == kept + len(made["bad"]) + len(made["repeats"]) + made["counts"]["left_out_by_weight"]
    assert len({row["id"] for row in rows}) == len(rows) == made["counts"]["utterances"]
    assert len({row["file"] for row in rows}) == kept
    assert [entry["licence"] for entry in made["licences"]] == [
        "Apache-2.0",
        "LICENSE.txt: CC0 1.0",
        "CC-BY-4.0",
        "your own",
        "your own",
    ]
    speakers = {row["id"].split("-0")[0]: set() for row in rows}  # type: dict[str, set[str]]
    for row in rows:
        speakers[row["id"].split("-0")[0]].add(row["speaker"])
    assert speakers["drawn"] == {"hibari"} and speakers["lj"] == {"anna"} and speakers["libri"] >= {"l-19", "l-61"}
    assert len(speakers["cv-17"]) == 3 and speakers["manifest-5"] == {"s0", "s1", "s2", "s3"}


def test_a_sentence_is_in_one_split_and_weights_are_of_training_alone(
    corpora: tuple[Path, dict[str, dict[str, str]]],
) -> None:
    pytest.importorskip("hibari")
    folder, _ = corpora
    plain, once = build(folder, PARTS.replace("weight: 2.5", "weight: 1").replace("weight: 0.5", "weight: 1"), "plain")
    made, rows = build(folder, PARTS, "weighed")
    for some in (once, rows):
        splits: dict[str, set[str]] = {}
        for row in some:
            splits.setdefault(key_of(row["text"]), set()).add(row["split"])
        assert all(len(found) == 1 for found in splits.values())
    assert made["repeats"] == plain["repeats"]  # of corpora with splits of their own: what another one holds out
    assert {entry["item"].split("/")[0] for entry in made["repeats"]} == {"libri", "cv.17"}
    for split in ("valid", "test"):
        assert [r for r in rows if r["split"] == split] == [r for r in once if r["split"] == split]
        assert any(row["split"] == split for row in rows)
    often = Counter(row["file"] for row in rows if row["split"] == "train")
    for name, source in (("drawn", {2}), ("lj", {2, 3}), ("libri", {1}), ("cv-17", {1})):
        assert {n for file, n in often.items() if file.startswith(f"audio/train/{name}-")} == source, name
    before = Counter(row["id"].split("-0")[0] for row in once if row["split"] == "train")
    after = Counter(row["id"].split("-0")[0] for row in rows if row["split"] == "train")
    assert abs(after["lj"] - 2.5 * before["lj"]) <= 1 and abs(after["cv-17"] - before["cv-17"] / 2) <= 5


def test_the_same_bytes_by_any_number_of_workers(corpora: tuple[Path, dict[str, dict[str, str]]]) -> None:
    pytest.importorskip("hibari")
    folder, _ = corpora
    build(folder, PARTS, "by-1")
    for workers in (2, 3, 7):
        build(folder, PARTS, f"by-{workers}", workers=workers)
        assert sha256_folder(folder / f"by-{workers}") == sha256_folder(folder / "by-1")


def test_sentences_of_the_embedded_voices_keep_their_splits(tmp_path: Path) -> None:
    pytest.importorskip("hibari")
    write_concepts(tmp_path)
    _, drawn = build(tmp_path, "- {source: embedded, name: drawn}\n", sentences=40, max_bad_fraction=0.0)
    lines = ["file,text"]
    for number, row in enumerate(drawn):
        sound(tmp_path / f"own/{number}.wav")
        lines.append(f'{number}.wav,"{row["text"]}"')
    (tmp_path / "own/metadata.csv").write_text("\n".join(lines))
    text = "- {source: folder, path: IN/own, name: me}\n- {source: embedded, name: drawn}\n"
    made, rows = build(tmp_path, text, "both", sentences=40)
    assert "repeats" not in made and len(rows) == 2 * len(drawn) and len({r["split"] for r in drawn}) > 1
    splits = {row["text"]: row["split"] for row in drawn}
    assert all(splits[row["text"]] == row["split"] for row in rows)
    assert {row["speaker"] for row in rows} == {"hibari", "me"}  # nobody says who: the source's name


def folder_of(path: Path, speaker: str, first: int = 0, number: int = 30) -> None:
    """Recordings of one speaker."""
    lines = ["file,text,speaker"]
    for at in range(first, first + number):
        sound(path / f"{at}.wav")
        lines.append(f"{at}.wav,{sentence(at)},{speaker}")
    (path / "metadata.csv").write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "- {source: folder, path: IN/a, name: x}\n- {source: folder, path: IN/b, name: y}",
            "both have a speaker '19'",
        ),
        ("- {source: folder, path: IN/a, shared: true}\n- {source: folder, path: IN/b}", "or both `shared: true`"),
        ("- {source: folder, path: IN/a, name: x}\n- {source: folder, path: IN/b, name: x}", "have the name 'x'"),
        ("- {source: folder, path: IN/a, name: x.y}\n- {source: folder, path: IN/b, name: x_y}", "too like another"),
        ("- {source: embedded}\n- {source: embedded}", "'embedded' is there twice"),
        ("- {source: mixture, path: speech.yaml}", "source 1.source: Input should be 'embedded'"),
        ("- {source: folder, path: IN/none}", "no such folder"),
        ("- {source: folder, path: IN/a, speeker: x}", "did you mean 'speaker'"),
        ("- {source: folder, path: IN/a, weight: 0}", "greater than 0"),
        ("- {source: folder, path: IN/a, name: 'a b'}", "source 1.name: String should match pattern"),
        ("- {source: folder}", "no folder is named"),
        ("- {source: manifest, path: IN/a, columns: {sound: x}}", "columns"),
        ("- {source: folder, path: 'https://me:pw@host/x'}", "a user or a password"),
        ("[]", "expected a list of sources"),
        ("- {", "not a file of sources"),
    ],
)
def test_what_cannot_be_mixed_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    write_concepts(tmp_path)
    for name in ("a", "b"):
        folder_of(tmp_path / name, "19", number=2)
    with pytest.raises(UserError, match=message) as caught:
        build(tmp_path, text)
    assert "\n" not in str(caught.value) and "pw" not in str(caught.value)


def test_a_person_in_two_sources_is_one_voice_if_they_say_so(tmp_path: Path) -> None:
    folder_of(tmp_path / "a", "19")
    folder_of(tmp_path / "b", "19", 20)
    folder_of(tmp_path / "c", "", 60)
    text = "- {source: folder, path: IN/a, shared: true}\n- {source: folder, path: IN/b, shared: true}\n"
    _, rows = build(tmp_path, text)
    assert {row["speaker"] for row in rows} == {"19"} and len(rows) == 60
    text = "- {source: folder, path: IN/a, prefix: a-}\n- {source: folder, path: IN/b, prefix: b-}\n"
    text += "- {source: folder, path: IN/c, speaker: eve}\n"
    _, rows = build(tmp_path, text, "apart")
    assert Counter(row["speaker"] for row in rows) == {"a-19": 30, "b-19": 30, "eve": 30}


def test_repeated_recordings_are_repeated_in_the_shards(tmp_path: Path) -> None:
    folder_of(tmp_path / "a", "me")
    _, rows = build(tmp_path, "- {source: folder, path: IN/a, weight: 2}\n")
    mel = read_params(Path(__file__).parents[1] / "params.yaml").mel
    write_mel_shards(tmp_path / "out", mel, tmp_path / "mels", 1)
    found = [
        sample["__key__"] for split in ("train", "valid", "test") for sample in read_shards(tmp_path / "mels", split)
    ]
    assert sorted(found) == sorted(row["id"] for row in rows)
    assert sum(key.endswith("-r2") for key in found) == sum(row["split"] == "train" for row in rows) / 2 > 0


def test_a_change_of_a_source_or_of_the_mixture_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_of(tmp_path / "a", "a")
    CORPORA["manifest"](tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    text = (
        "- {source: folder, path: a}\n- {source: manifest, path: m/list.jsonl, columns: {audio: sound, text: said}}\n"
    )
    with s3_server(monkeypatch) as client:
        folder_of(tmp_path / "up", "up", 100)
        upload(client, tmp_path / "up", "corpora", "up")
        build(tmp_path, text + "- {source: folder, path: 's3://corpora/up'}\n", "data/corpus/speech")
        assert sources.main() == 0 and "as they were read" in capsys.readouterr().out
        sound(tmp_path / "a/0.wav", 1.5)
        (tmp_path / "m/list.jsonl").write_text((tmp_path / "m/list.jsonl").read_text() + "\n")
        client.put_object(Bucket="corpora", Key="up/more.txt", Body=b"x")
        (tmp_path / "speech.yaml").write_text(text)
        assert sources.main() == 1
    told = [line.rsplit(": has changed", 1)[0] for line in capsys.readouterr().out.splitlines()]
    assert told == [str(tmp_path / "speech.yaml"), "a", "m", "s3://corpora/up"]
