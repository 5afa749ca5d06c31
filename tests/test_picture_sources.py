"""Pictures by configuration: every layout, here and elsewhere; bad items one by one; captions as training material."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_folders import MAX_PIXELS, THINGS, WRITERS, drawn, put
from PIL import Image
from remote_folders import s3_server, upload, web_server

from muomni.config import parse
from muomni.data.files import read_jsonl, sha256_folder
from muomni.data.image_corpus import ImagesConfig, build_image_corpus
from muomni.data.image_shards import write_image_shards
from muomni.data.own_pictures import square
from muomni.data.shards import read_shards
from muomni.data.tasks import SplitConversations
from muomni.errors import UserError

SEED = 5
VALUES: dict[str, Any] = {
    "source": "csv",
    "path": "",
    "names": 20,
    "scene_names": 12,
    "size_px": 32,
    "singles_per_name": 3,
    "scenes": 0,
    "valid_singles": 6,
    "valid_scenes": 0,
    "test_singles": 6,
    "test_scenes": 0,
    "per_shard": 100,
    "max_pixels": MAX_PIXELS,
    "max_bad_fraction": 0.3,
}


def config(**changes: Any) -> ImagesConfig:
    return parse(ImagesConfig, VALUES | changes, "params.yaml: images")


def build(out: Path, **changes: Any) -> dict[str, Any]:
    out.mkdir(parents=True)
    return build_image_corpus(config(**changes), SEED, out, where="images")


def captioned(corpus: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(corpus / "captioned.jsonl", ""))


@pytest.mark.parametrize("every", [100, 9])
@pytest.mark.parametrize("kind", WRITERS)
def test_bad_items_are_set_aside_and_none_is_lost(tmp_path: Path, kind: str, every: int) -> None:
    reasons = WRITERS[kind](tmp_path / "in", 200, every)
    manifest = build(tmp_path / "out", source=kind, path=str(tmp_path / "in"))
    told = {entry["item"]: entry["reason"] for entry in manifest["bad"]}
    for item, reason in reasons.items():
        mine = [told[name] for name in told if name == item or name.startswith(f"{item} ")]
        assert len(mine) == 1 and mine[0].startswith(reason), (item, reason, mine)
    counts = manifest["counts"]
    assert len(told) == len(manifest["bad"]) == counts["bad"] == len(reasons) >= 1
    assert counts.get("captioned", 0) + counts["drawings"] == 200 - len(reasons)
    origin = manifest["origins"][0]
    assert (origin["items"], origin["bad"], origin["source"]) == (200 - len(reasons), len(reasons), kind)
    rows = captioned(tmp_path / "out")
    assert {row["split"] for row in rows} == {"train", "valid", "test"}
    assert all((tmp_path / "out" / row["file"]).is_file() for row in rows)
    if kind == "coco":
        assert all(len(row["captions"]) == 2 for row in rows)


def test_some_bad_captions_of_a_good_picture_are_told(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.png", drawn(1))
    put(tmp_path / "in" / "a.txt", b"A dog.\n\nA dog.\n" + b"w " * 400)
    for n in range(2, 9):
        put(tmp_path / "in" / f"{n}.png", drawn(n))
        put(tmp_path / "in" / f"{n}.txt", b"A   cat\x07 sleeps.\n")
    manifest = build(tmp_path / "out", source="sidecar", path=str(tmp_path / "in"))
    assert [entry["item"] for entry in manifest["bad"]] == ["a.png caption 3"]  # an empty line is none
    assert {tuple(row["captions"]) for row in captioned(tmp_path / "out")} == {("A dog.",), ("A cat sleeps.",)}


def test_rows_of_several_lines_and_a_cut_tar_are_told(tmp_path: Path) -> None:
    WRITERS["csv"](tmp_path / "csv", 30, 1000)
    with (tmp_path / "csv" / "captions.csv").open("a") as file:
        file.write('0001.png,"never closed\n0002.png,swallowed\n')
    manifest = build(tmp_path / "one", source="csv", path=str(tmp_path / "csv"))
    assert [(e["item"], e["reason"][:22]) for e in manifest["bad"]] == [
        ("captions.csv:32-33", "a row of several lines")
    ]
    WRITERS["webdataset"](tmp_path / "tars", 60, 1000)
    path = tmp_path / "tars" / "part-000.tar"
    path.write_bytes(path.read_bytes()[:30_000])
    manifest = build(tmp_path / "two", source="webdataset", path=str(tmp_path / "tars"))
    assert manifest["bad"][0]["item"] == "part-000.tar" and "damaged after" in manifest["bad"][0]["reason"]
    seen = int(manifest["bad"][0]["reason"].split()[2])
    assert manifest["counts"]["captioned"] == seen + 10


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[str, ...]]]:
    root = tmp_path_factory.mktemp("layouts")
    for kind, write in WRITERS.items():
        write(root / kind, 24, 9)
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as client, web_server(root) as web:
        upload(client, root, "bucket", "my data")
        yield {kind: (str(root / kind), f"s3://bucket/my data/{kind}", f"{web}/{kind}") for kind in WRITERS}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_corpus_from_here_from_s3_and_from_the_web(
    tmp_path: Path, places: dict[str, tuple[str, ...]], kind: str
) -> None:
    manifests = [
        build(tmp_path / str(number), source=kind, path=address) for number, address in enumerate(places[kind])
    ]
    hashes = {sha256_folder(tmp_path / str(number)) for number in range(3)}
    assert len(hashes) == 1
    assert manifests[0]["bad"] == manifests[1]["bad"] == manifests[2]["bad"]
    assert not_secret(manifests[1])


def not_secret(manifest: dict[str, Any]) -> bool:
    text = json.dumps(manifest)
    return "tester" not in text and "not-to-be-seen" not in text


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("folder", "captions.jsonl is missing"),
        ("csv", "captions.csv is missing"),
        ("coco", "holds no annotations"),
        ("webdataset", "holds no .tar"),
        ("sidecar", "there is nothing to read"),
    ],
)
def test_a_folder_of_another_layout_is_one_line(tmp_path: Path, kind: str, message: str) -> None:
    put(tmp_path / "in" / "readme.md", b"x")
    with pytest.raises(UserError, match=message):
        build(tmp_path / "out", source=kind, path=str(tmp_path / "in"))
    put(tmp_path / "in" / "captions.csv", b"picture,words\na,b\n")
    with pytest.raises(UserError, match="needs the columns file and caption"):
        build(tmp_path / "out2", source="csv", path=str(tmp_path / "in"))


def test_captioned_pictures_are_shown_as_the_model_is_shown_pictures() -> None:
    image = Image.new("RGBA", (40, 20), (10, 200, 30, 255))
    fitted = np.asarray(square(image, 32))
    assert fitted.shape == (32, 32, 3)
    assert tuple(fitted[0, 0]) == (255, 255, 255) and tuple(fitted[16, 16]) == (10, 200, 30)


def shards_of(tmp_path: Path, **changes: Any) -> dict[str, list[dict[str, Any]]]:
    build(tmp_path / "corpus", **changes)
    write_image_shards(config(**changes), SEED, tmp_path / "corpus", tmp_path / "images", workers=1)
    return {split: list(read_shards(tmp_path / "images", split)) for split in ("train", "valid", "test")}


def test_captions_become_descriptions_and_no_split_shows_another_ones_pictures(tmp_path: Path) -> None:
    WRITERS["coco"](tmp_path / "in", 120, 1000)
    splits = shards_of(tmp_path, source="coco", path=str(tmp_path / "in"))
    seen = {split: {sample["png"] for sample in samples} for split, samples in splits.items()}
    assert not seen["train"] & seen["test"] and not seen["train"] & seen["valid"] and not seen["valid"] & seen["test"]
    assert len(splits["train"]) == len(seen["train"]) > 80
    for sample in splits["train"]:
        about = sample["json"]
        assert Image.open(io.BytesIO(sample["png"])).size == (32, 32)
        assert about["kind"] == "captioned" and about["caption"] in about["captions"] and about["objects"] == []
    made = SplitConversations("train", SEED, splits["train"], [], [], 8).make("caption", 300)
    assert len(made) == 300
    by_key = {sample["__key__"]: sample for sample in splits["train"]}
    answers: dict[str, set[str]] = {}
    for item in made:
        sample = by_key[item.sources["picture"]]
        assert item.answer in sample["json"]["captions"] and item.members["0.png"] == sample["png"]
        assert item.targets[0] in THINGS
        answers.setdefault(item.sources["picture"], set()).add(item.answer)
    assert max(map(len, answers.values())) == 2  # another time, another of its captions
    with pytest.raises(UserError, match="conversations.train.single"):
        SplitConversations("train", SEED, splits["train"], [], [], 8).make("single", 1)


def test_a_mixture_of_drawings_and_captions_weighs_training_alone(tmp_path: Path) -> None:
    WRITERS["csv"](tmp_path / "csv", 60, 1000)
    WRITERS["webdataset"](tmp_path / "tars", 100, 20)
    text = f"""
- {{source: embedded}}
- {{source: csv, path: {tmp_path / "csv"}, weight: 3, name: mine, licence: CC-BY-4.0}}
- {{source: webdataset, path: {tmp_path / "tars"}, weight: 0.5}}
"""
    (tmp_path / "mixture.yaml").write_text(text)
    drawn_scenes = {"scenes": 20, "valid_scenes": 5, "test_scenes": 5}
    changes = {"source": "mixture", "path": str(tmp_path / "mixture.yaml"), "max_bad_fraction": 0.5} | drawn_scenes
    splits = shards_of(tmp_path, **changes)
    rows = captioned(tmp_path / "corpus")
    for name, weight in (("mine", 3), ("webdataset-3", 0.5)):
        mine = [row for row in rows if row["source"] == name]
        train = [row for row in mine if row["split"] == "train"]
        assert sum(row["times"] for row in train) == pytest.approx(weight * len(train), abs=0.5)
        assert all(row["times"] == 1 for row in mine if row["split"] != "train")
    kinds = [sample["json"]["kind"] for sample in splits["train"]]
    assert kinds.count("scene") == 20 and kinds.count("single") == 60
    assert kinds.count("captioned") == sum(row["times"] for row in rows if row["split"] == "train")
    manifest = json.loads((tmp_path / "corpus" / "manifest.json").read_text())
    told = {origin["name"]: (origin["items"], origin["bad"], origin["licence"]) for origin in manifest["origins"]}
    assert told["mine"] == (60, 0, "CC-BY-4.0")
    # The first 60 pictures of the tars are those of the other folder, and three of them are bad beside.
    assert told["webdataset-3"] == (38, 62, "your own")
    assert sum(e["reason"].startswith("the same picture as mine/") for e in manifest["bad"]) >= 57
    assert told["embedded-1"] == (20, 0, "CC-BY-SA-4.0")
    assert manifest["counts"]["bad"] == 62 and all(e["item"].startswith("webdataset-3/") for e in manifest["bad"])
