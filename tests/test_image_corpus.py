"""The picture corpus and its shards: complete, deterministic, and bad pictures set aside with their reason."""

import dataclasses
import io
import json
import random
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from muomni.config import parse
from muomni.data.badsamples import BadSamples
from muomni.data.concepts import select_concepts
from muomni.data.files import read_jsonl
from muomni.data.grammar import content_key
from muomni.data.image_corpus import (
    ImagesConfig,
    build_image_corpus,
    corpus_concepts,
    embedded_images,
)
from muomni.data.image_shards import write_image_shards
from muomni.data.mixtures import Origin
from muomni.data.own_pictures import DRAWING_PIXELS, NamedImage, read_own
from muomni.data.picture_sources import PicturePart
from muomni.data.sentences import scene_questions
from muomni.data.shards import read_shards
from muomni.data.splits import TRAIN_ONLY, combination_split, pair_key
from muomni.errors import UserError

SEED = 5
VALUES: dict[str, Any] = {
    "source": "embedded",
    "path": "",
    "names": 40,
    "scene_names": 24,
    "size_px": 64,
    "singles_per_name": 3,
    "scenes": 60,
    "valid_singles": 40,
    "valid_scenes": 20,
    "test_singles": 40,
    "test_scenes": 40,
    "per_shard": 100,
    "max_pixels": 1_000_000,
    "max_bad_fraction": 0.5,
}


def config(**changes: Any) -> ImagesConfig:
    return parse(ImagesConfig, VALUES | changes, "params.yaml: images")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    build_image_corpus(config(), SEED, folder, where="data/corpus/images")
    return folder


@pytest.fixture(scope="module")
def shards(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "images"
    write_image_shards(config(), SEED, corpus, folder, workers=1)
    return folder


def test_drawings_are_tight_transparent_and_all_different(corpus: Path) -> None:
    rows = list(read_jsonl(corpus / "concepts.jsonl", "corpus-images"))
    assert len(rows) == 40 and sum(row["scene"] for row in rows) == 24
    seen = set()
    for row in rows:
        image = Image.open(corpus / row["file"])
        assert image.mode == "RGBA" and max(image.size) == DRAWING_PIXELS
        assert image.getchannel("A").getbbox() == (0, 0, *image.size)
        alpha = np.asarray(image.getchannel("A"))
        assert 0.02 < (alpha > 0).mean() <= 1, row["name"]
        seen.add(image.tobytes())
    assert len(seen) == 40
    manifest = json.loads((corpus / "manifest.json").read_text())
    assert manifest["counts"] == {"bad": 0, "drawings": 40, "names": 40, "scene_names": 24}
    assert {entry["licence"] for entry in manifest["licences"]} == {"CC-BY-SA-4.0", "MIT"}
    assert corpus_concepts(corpus) == select_concepts(40, 24)


def test_a_corpus_is_the_same_again(corpus: Path, tmp_path: Path) -> None:
    again = build_image_corpus(config(), SEED, tmp_path, where="elsewhere")
    assert again == json.loads((corpus / "manifest.json").read_text())


def test_shards_hold_every_name_in_every_split_and_no_combination_in_two(shards: Path) -> None:
    pairs: dict[str, set[str]] = {}
    pictures: dict[str, set[bytes]] = {}
    for split, singles, scenes in (("train", 120, 60), ("valid", 40, 20), ("test", 40, 40)):
        samples = list(read_shards(shards, split))
        about = [sample["json"] for sample in samples]
        names = [item["objects"][0]["name"] for item in about if item["kind"] == "single"]
        assert len(names) == singles and len(set(names)) == 40
        assert len(samples) == singles + scenes
        pictures[split] = {sample["png"] for sample in samples}
        pairs[split] = set()
        for sample, item in zip(samples, about, strict=True):
            assert Image.open(io.BytesIO(sample["png"])).size == (64, 64)
            if item["kind"] == "scene":
                there = {thing["name"] for thing in item["objects"]}
                assert content_key(item["caption"]) == item["key"]
                pairs[split] |= {pair_key(*two) for two in combinations(there, 2)} or {item["key"]}
        assert all(combination_split(key, SEED) == split for key in pairs[split])
        # Singles and scenes are mixed from the beginning on.
        assert {item["kind"] for item in about[:20]} == {"single", "scene"}
    for one, two in combinations(pairs, 2):
        assert not pairs[one] & pairs[two] and not pictures[one] & pictures[two]


def test_shards_do_not_depend_on_the_number_of_processes(corpus: Path, shards: Path, tmp_path: Path) -> None:
    index = write_image_shards(config(), SEED, corpus, tmp_path / "images", workers=2)
    assert index == json.loads((shards / "index.json").read_text())
    other = write_image_shards(config(), SEED + 1, corpus, tmp_path / "other", workers=1)
    assert index["splits"] != other["splits"]


def test_a_missing_corpus_or_too_few_scene_names_is_one_line(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro corpus-images"):
        write_image_shards(config(), SEED, tmp_path / "nothing", tmp_path / "images", workers=1)
    (tmp_path / "few").mkdir()
    build_image_corpus(config(scene_names=2), SEED, tmp_path / "few", where="few")
    with pytest.raises(UserError, match=r"images\.scene_names"):
        write_image_shards(config(), SEED, tmp_path / "few", tmp_path / "images", workers=1)


def test_bad_parameters_are_named() -> None:
    for changes, named in (
        ({"names": 9}, "images.names"),
        ({"size": 3}, "images.size"),
        ({"source": "folder"}, "needs path"),
        ({"source": "folder", "path": "x"}, "set all scenes to 0"),
        ({"source": "web"}, "images.source"),
    ):
        with pytest.raises(UserError, match=named):
            config(**changes)


def test_a_drawing_that_cannot_be_rendered_is_set_aside() -> None:
    concepts = list(select_concepts(10, 5))
    concepts[3] = dataclasses.replace(concepts[3], file="nothing")
    bad = BadSamples(0.2, "images")
    images = list(embedded_images(concepts, bad))
    assert len(images) == 9 and len(bad) == 1
    assert "nothing.svg" in bad.items[0]["item"] and "cannot be rendered" in bad.items[0]["reason"]


def own_folder(folder: Path) -> list[dict[str, str]]:
    """A folder of pictures, half of them unusable in every way we know."""
    folder.mkdir()
    rng = random.Random(1)
    rows = []
    for number in range(8):
        name = "dog" if number < 5 else "blue thing"
        image = Image.new("RGB", (60 + number, 40), tuple(rng.randrange(256) for _ in range(3)))
        image.save(folder / f"good{number}.png")
        rows.append({"file": f"good{number}.png", "name": name})
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("no picture")
    good = (folder / "good0.png").read_bytes()
    (folder / "cut.png").write_bytes(good[: len(good) * 2 // 3])
    Image.new("L", (2000, 1000)).save(folder / "huge.png")
    Image.new("RGBA", (9, 9)).save(folder / "clear.png")
    (folder / "twin.png").write_bytes(good)
    for file in ("empty.png", "text.png", "cut.png", "huge.png", "clear.png", "twin.png", "none.png", "../out.png"):
        rows.append({"file": file, "name": "cat"})
    rows += [{"file": "good1.png", "name": name} for name in ("Not A Name!", "a" * 300)]
    return rows


def write_captions(folder: Path, rows: list[dict[str, str]]) -> None:
    lines = [json.dumps(row) for row in rows] + ['{"file": 3}', "no JSON", '["a list"]']
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")


def folder_images(folder: Path, seed: int, max_pixels: int, bad: BadSamples) -> list[NamedImage]:
    part = PicturePart(source="folder", path=str(folder))
    images, captioned = read_own(part, seed, max_pixels, 64, folder, bad, Origin("x", "folder", "", ""), {})
    assert not captioned
    return images


def test_own_pictures_are_read_and_bad_ones_set_aside_with_reasons(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    write_captions(folder, own_folder(folder))
    bad = BadSamples(1.0, "images")
    images = folder_images(folder, SEED, 1_000_000, bad)
    assert [image.concept.name for image in images] == ["blue thing"] * 3 + ["dog"] * 5
    reasons = " / ".join(f"{entry['item']}: {entry['reason']}" for entry in bad.items)
    for reason in (
        "empty.png: empty file",
        "text.png: no picture",
        "cut.png: damaged",
        "huge.png: 2000 x 1000 pixels, more than images.max_pixels",
        "clear.png: it is wholly transparent",
        "twin.png: the same picture as good0.png",
        "none.png: no such file",
        "out.png: outside the folder",
        "'Not A Name!' is not one to four words",
        "the name has 300 letters, more than 80",
        "captions.jsonl:19: no object with",
        "captions.jsonl:21: no object with",
    ):
        assert reason in reasons, (reason, reasons)
    assert len(bad) == 13
    # Of names with several pictures some are kept from training.
    for name in ("dog", "blue thing"):
        assert {image.split for image in images if image.concept.name == name} == {"train", "valid", "test"}


def test_own_pictures_become_shards_and_questions(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    write_captions(folder, own_folder(folder))
    none = {"scenes": 0, "valid_scenes": 0, "test_scenes": 0}
    own = config(source="folder", path=str(folder), **none, max_bad_fraction=0.9, valid_singles=4, test_singles=4)
    build_image_corpus(own, SEED, tmp_path / "corpus", where="images")
    write_image_shards(own, SEED, tmp_path / "corpus", tmp_path / "images", workers=1)
    concepts = corpus_concepts(tmp_path / "corpus")
    for split, number in (("train", 6), ("valid", 4), ("test", 4)):
        samples = list(read_shards(tmp_path / "images", split))
        assert len(samples) == number
        for sample in samples:
            assert sample["json"]["key"].startswith(TRAIN_ONLY)
            asked = scene_questions(sample["json"], random.Random(1), concepts)
            assert {"what", "exists"} <= {qa.kind for qa in asked}
    with pytest.raises(UserError, match=r"60\.0% .*max_bad_fraction|over the limit"):
        build_image_corpus(own.model_copy(update={"max_bad_fraction": 0.3}), SEED, tmp_path / "again", where="images")


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"captions\.jsonl is missing"):
        folder_images(tmp_path / "nowhere", SEED, 100, BadSamples(1.0, "images"))
