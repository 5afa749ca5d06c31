"""Prose by configuration: JSON lines, Parquet and mixtures, here and elsewhere, bad items set aside one by one."""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from remote_folders import s3_server, upload, web_server

from muomni.config import parse
from muomni.data.badsamples import BadSamples
from muomni.data.files import read_jsonl
from muomni.data.mixtures import times
from muomni.data.text_corpus import TextConfig, build_text_corpus
from muomni.data.text_sources import file_documents
from muomni.errors import UserError

VALUES: dict[str, Any] = {
    "source": "jsonl",
    "path": "",
    "max_mb": 100.0,
    "max_document_mb": 0.01,
    "fact_documents": 0,
    "sentences": 0,
    "valid_fraction": 0.1,
    "test_fraction": 0.2,
    "max_bad_fraction": 0.25,
}


def config(**changes: Any) -> TextConfig:
    return parse(TextConfig, VALUES | changes, "params.yaml: text")


def prose(seed: int, words: int = 60) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefghij", k=rng.randint(2, 6))) for _ in range(words)) + "."


def write_lines(path: Path, number: int, field: str, every: int, first: int = 0) -> dict[str, str]:
    """JSON lines of which one in `every` is bad, in turn in each way; returns the reasons by item."""
    bad = (
        ("{", "not JSON"),
        ("[1]", f"no object with a {field}"),
        ('{"other": "x"}', f"no object with a {field}"),
        (json.dumps({field: 3}), f"no object with a {field}"),
        (json.dumps({field: " \n"}), "empty"),
        (json.dumps({field: "a\0b"}), "binary"),
        (json.dumps({field: "w " * 9000}), "larger than text.max_document_mb"),
        (b"\xff\xfe", "not JSON"),
        ("[" * 5000, "not JSON"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    reasons, turn = {}, 0
    with path.open("wb") as file:
        for line in range(1, number + 1):
            if line % every == 0:
                text, reason = bad[turn % len(bad)]
                reasons[f"{path.name}:{line}"] = reason
                turn += 1
            else:
                text = json.dumps({field: prose(first + line), "id": line})
            file.write((text.encode() if isinstance(text, str) else text) + b"\n")
    return reasons


def write_table(path: Path, number: int, column: str, every: int, first: int = 0) -> dict[str, str]:
    """Parquet with row groups of 20, of which one row in `every` is bad; returns the reasons by item."""
    bad = (
        (None, f"no {column}"),
        ("  ", "empty"),
        ("a\0", "binary"),
        ("w " * 9000, "larger than text.max_document_mb"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    texts: list[str | None] = []
    reasons = {}
    for row in range(1, number + 1):
        if row % every == 0:
            text, reasons[f"{path.name}:{row}"] = bad[row // every % len(bad)]
        else:
            text = prose(first + row)
        texts.append(text)
    table = pa.table({"number": list(range(number)), column: pa.array(texts, pa.string())})
    pq.write_table(table, path, row_group_size=20)
    return reasons


def build(cfg: TextConfig, out: Path, seed: int = 0) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    out.mkdir()
    manifest = build_text_corpus(cfg, seed, out, out / "none.jsonl")
    return manifest, {split: list(read_jsonl(out / f"{split}.jsonl", "")) for split in ("train", "valid", "test")}


def check(manifest: dict[str, Any], splits: dict[str, Any], reasons: dict[str, str], total: int) -> None:
    """Every bad item is there with its reason, every other one is in a split."""
    told = {entry["item"]: entry["reason"] for entry in manifest["bad"]}
    assert told.keys() == reasons.keys()
    for item, reason in reasons.items():
        assert told[item].startswith(reason), (item, told[item], reason)
    kept = [row["id"] for rows in splits.values() for row in rows]
    assert len(kept) == len(set(kept)) == total - len(reasons)
    assert manifest["counts"] | {"bad": len(reasons), "documents_read": total} == manifest["counts"]
    assert [origin["items"] + origin["bad"] for origin in manifest["origins"]] == [total]


@pytest.mark.parametrize("every", [100, 7])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_bad_items_are_set_aside_and_none_is_lost(tmp_path: Path, kind: str, every: int) -> None:
    write = write_lines if kind == "jsonl" else write_table
    reasons = write(tmp_path / "in" / f"a.{kind}", 300, "body", every)
    reasons |= write(tmp_path / "in" / f"b.{kind}", 100, "body", every, 1000)
    manifest, splits = build(config(source=kind, path=str(tmp_path / "in"), field="body"), tmp_path / "out")
    check(manifest, splits, reasons, 400)
    origin = manifest["origins"][0]
    assert (origin["source"], origin["files"], origin["weight"]) == (kind, 2, 1.0)


def test_damaged_tables_and_other_columns_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write_table(folder / "good.parquet", 60, "text", 1000)
    whole = (folder / "good.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(whole[:-200])
    (folder / "none.parquet").write_bytes(b"")
    (folder / "other.parquet").write_bytes(whole.replace(b"text", b"tixt"))
    about = pq.ParquetFile(folder / "good.parquet").metadata.row_group(1).column(1)
    at = about.dictionary_page_offset or about.data_page_offset
    (folder / "hurt.parquet").write_bytes(whole[:at] + b"\xff" * 200 + whole[at + 200 :])
    pq.write_table(pa.table({"text": [1, 2]}), folder / "numbers.parquet")
    bad = BadSamples(1.0, "x")
    named = list(file_documents(folder, 1e6, bad, "parquet"))
    told = {entry["item"]: entry["reason"] for entry in bad.items}
    assert told.pop("cut.parquet").startswith("damaged, or no Parquet")
    assert told.pop("none.parquet").startswith("damaged, or no Parquet")
    assert told.pop("other.parquet") == told.pop("numbers.parquet") == "no column 'text' of texts"
    assert told.pop("hurt.parquet:21-40").startswith("a damaged row group, of which 20 rows are left out")
    assert not told
    assert len(named) == 60 + 40
    assert [name for name, _ in named if name.startswith("hurt")][:21][-1] == "hurt.parquet:41"


def test_the_same_documents_from_here_from_s3_and_from_the_web(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write_lines(folder / "a.jsonl", 40, "text", 9)
    write_table(folder / "below" / "b.parquet", 40, "text", 9)
    (folder / "c.txt").write_text("A text.")
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as client, web_server(tmp_path) as web:
        upload(client, folder, "bucket", "mine")
        for kind in ("files", "jsonl", "parquet"):
            found = []
            for address in (str(folder), "s3://bucket/mine", f"{web}/mine"):
                bad = BadSamples(1.0, "x")
                found.append((list(file_documents(address, 1e4, bad, kind)), bad.items))
            assert found[0] == found[1] == found[2]
            assert found[0][0]


def mixture(tmp_path: Path, text: str) -> TextConfig:
    (tmp_path / "mixture.yaml").write_text(text)
    return config(source="mixture", path=str(tmp_path / "mixture.yaml"))


def test_a_mixture_weighs_training_alone(tmp_path: Path) -> None:
    write_lines(tmp_path / "a" / "x.jsonl", 100, "text", 20)
    write_table(tmp_path / "b" / "x.parquet", 100, "body", 1000, 5000)
    parts = f"""
- {{source: jsonl, path: {tmp_path / "a"}, weight: 2.5, licence: CC0}}
- {{source: parquet, path: {tmp_path / "b"}, field: body, weight: 0.5, name: books}}
"""
    plain, unweighed = build(mixture(tmp_path, parts.replace("2.5", "1").replace("0.5", "1")), tmp_path / "plain")
    manifest, splits = build(mixture(tmp_path, parts), tmp_path / "out")
    _, again = build(mixture(tmp_path, parts), tmp_path / "again")
    assert splits == again
    assert {s: splits[s] for s in ("valid", "test")} == {s: unweighed[s] for s in ("valid", "test")}
    for name, weight in (("jsonl-1", 2.5), ("books", 0.5)):
        once = {row["id"] for row in unweighed["train"] if row["source"] == name}
        met = [row["id"].partition("#")[0] for row in splits["train"] if row["source"] == name]
        assert len(met) == sum(times(once, weight, 0).values()) == pytest.approx(weight * len(once), abs=1)
        assert set(met) == once if weight > 1 else set(met) < once
    told = {origin["name"]: origin for origin in manifest["origins"]}
    assert (told["jsonl-1"]["items"], told["jsonl-1"]["bad"], told["jsonl-1"]["licence"]) == (95, 5, "CC0")
    assert (told["books"]["items"], told["books"]["bad"], told["books"]["licence"]) == (100, 0, "your own")
    assert {entry["licence"] for entry in manifest["licences"]} == {"CC0", "your own"}
    assert all(entry["item"].startswith("jsonl-1/x.jsonl:") for entry in manifest["bad"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "expected a list of sources"),
        ("[", "not a file of sources"),
        ("- {source: files, path: x, weight: 0}", "source 1.weight"),
        ("- {source: poems, path: x}", "source 1.source"),
        ("- {source: files, path: x, wieght: 2}", "unknown key .*did you mean 'weight'"),
        ("- {source: files, path: 's3://me:pass@bucket'}", "has a user or a password"),
        ("- {source: files, path: x, name: a}\n- {source: jsonl, path: y, name: a}", "two sources have the name 'a'"),
        ("- {source: files, path: /no/such}", "no such folder"),
    ],
)
def test_a_bad_mixture_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as told:
        build(mixture(tmp_path, text), tmp_path / "out")
    assert "\n" not in str(told.value) and "pass@" not in str(told.value)


def test_a_changed_file_is_another_state(tmp_path: Path) -> None:
    write_lines(tmp_path / "in" / "a.jsonl", 40, "text", 1000)
    cfg = config(path=str(tmp_path / "in"))
    before = build(cfg, tmp_path / "one")[0]["origins"][0]["state"]
    assert build(cfg, tmp_path / "two")[0]["origins"][0]["state"] == before
    with (tmp_path / "in" / "a.jsonl").open("a") as file:
        file.write(json.dumps({"text": prose(99)}) + "\n")
    assert build(cfg, tmp_path / "three")[0]["origins"][0]["state"] != before
