"""The page of how a model learned: the same sample of each evaluation in one row, whatever a model wrote."""

import json
import re
from pathlib import Path

import pytest
import torch
from passport_samples import logged
from PIL import Image
from small_models import AUDIO, OMNI, VISION
from stage_tasks import LOOP, make_data, omni_task

from muomni.cli import main
from muomni.errors import UserError
from muomni.omni import Omni
from muomni.passport.learning import MOST_STEPS, learning_page, spread
from muomni.passport.trainings import read_training, read_trainings
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer
from muomni.train.a_thinker import PROMPTS, ThinkerStageConfig, ThinkerTask
from muomni.train.b_audio_encoder import AudioStageConfig, AudioTask
from muomni.train.c_vision_encoder import VisionStageConfig, VisionTask
from muomni.train.shown import save_mel, save_picture
from pipelines import learning
from pipelines.copies import Copy
from pipelines.graph_run import KEPT, write_learning
from pipelines.sender import connect, experiment_id

HOSTILE = '<script>alert("x")</script> <img src=http://evil.example/x>'


def test_a_row_has_the_same_sample_of_each_evaluation(tmp_path: Path) -> None:
    logged(tmp_path / "e-omni")
    training = read_training(tmp_path / "e-omni")
    assert training.steps == [100, 200] and len(training.train) == 20 and len(training.valid) == 2
    answer, said = training.samples
    assert answer.about == {"task": "name", "question": "What?", "wanted": "a dog"} and answer.picture
    assert answer.texts == {100: "at 100", 200: "at 200"}
    assert said.about == {"said": "Two dogs. (hibari)"} and sorted(said.sounds) == [100, 200]
    page = learning_page([training])
    assert page.count("<audio") == 2 and page.count("image/png") == 1 + 2  # the picture once, two curves
    row = page[page.index("<small>task</small>") : page.index("</tr>", page.index("<small>task</small>"))]
    assert row.index("at 100") < row.index("at 200")
    assert page == learning_page([read_training(tmp_path / "e-omni")])  # the same bytes, for dvc


def test_what_stays_as_it_was_is_pale_and_many_evaluations_are_told(tmp_path: Path) -> None:
    logged(tmp_path / "e-omni", tuple(range(10, 210, 10)), wrote="always")
    page = learning_page([read_training(tmp_path / "e-omni")])
    assert page.count("<small>always</small>") == MOST_STEPS - 1
    assert "Not shown: 14 evaluations." in page and "step 10<" in page and "step 200<" in page
    for count in range(1, 40):
        some = spread(list(range(count)))
        assert len(some) == len({*some}) == min(count, MOST_STEPS) and some[0] == 0 and some[-1] == count - 1


def test_nothing_that_a_model_writes_takes_effect(tmp_path: Path) -> None:
    folder = logged(tmp_path / "b<b>", wrote=HOSTILE)
    last = folder / "samples/step-000200/answers.tsv"
    last.write_text(last.read_text() + 'scene\ta\tb\t"quoted\nscene\ta\tb\tone\ttwo\nthree\n\xff', encoding="latin-1")
    (folder / "samples/step-000200/broken.wav").write_bytes(b"RIFF")
    page = learning_page(read_trainings([tmp_path]))
    assert "<script" not in page and "&lt;script&gt;" in page and "&quot;quoted" in page and "one two three" in page
    assert not re.search(r"""<[^>]*\b(src|href|action)="(?!data:|#)|url\(|<b>""", page)
    assert "default-src 'none'" in page


def test_a_training_under_way_counts_and_none_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["learning"]) == 2
    assert capsys.readouterr().err.startswith("error: metrics/train, .muomni/state: no training has logged anything")
    logged(Path("metrics/train/a-thinker"))
    state = Path(".muomni/state/b-audio-encoder")
    state.mkdir(parents=True)
    lines = [{"step": 10, "time": 1.0, "loss": 3.0}, {"step": 20, "time": 2.0, "loss": 2.0, "valid_cer": 0.5}]
    (state / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3')
    assert main(["learning", "--page", "page.html"]) == 0
    page = Path("page.html").read_text()
    assert "a-thinker" in page and "valid cer" in page
    Path("metrics/train/a-thinker/train.json").write_text("[1]")
    with pytest.raises(UserError, match=r"a-thinker/train.json: holds no curve; run `dvc repro --force a-thinker`"):
        read_trainings([Path("metrics/train")])


def test_a_run_is_read_from_mlflow_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    with pytest.raises(UserError, match="no registry here yet"):
        learning.write("key", Path("page.html"))
    client = connect()
    experiment = experiment_id(client)
    parent = client.create_run(experiment, tags={"muomni.run": "key", "dvc_exp": "exp-1"}, run_name="train")
    folder = logged(tmp_path / "logged")
    for name, loss in (("a-thinker", 3.5), ("e-omni", 2.5)):
        child = client.create_run(experiment, tags={"mlflow.parentRunId": parent.info.run_id}, run_name=name)
        for step in (10, 20):
            client.log_metric(child.info.run_id, "loss", loss / step, step=step)
        client.log_artifacts(child.info.run_id, str(folder / "samples"), "samples")
    for name in ("key", "exp-1", parent.info.run_id):
        learning.write(name, Path("page.html"))
        page = Path("page.html").read_text()
        assert page.count("<audio") == 4 and "a-thinker" in page and "e-omni" in page and "at 200" in page
    with pytest.raises(UserError, match="'nothing': no run of this key"):
        learning.write("nothing", Path("page.html"))


def test_a_graph_run_leaves_a_page_where_it_trained_something(tmp_path: Path) -> None:
    copy = Copy(tmp_path, "0" * 40, tmp_path / "run", "key")
    copy.folder.mkdir(parents=True)
    assert not write_learning(copy) and list(copy.folder.iterdir()) == []
    logged(copy.folder / "metrics/train/a-thinker")
    assert write_learning(copy) and learning.PAGE in KEPT
    assert "a-thinker" in (copy.folder / learning.PAGE).read_text()


def test_stages_leave_what_one_can_see(tmp_path: Path, small: tuple[Omni, Tokenizer]) -> None:
    data, tokenizer = make_data(tmp_path / "data"), small[1]
    tokenizer.save(tmp_path / "tokenizer.model")
    hearing = AudioStageConfig(**LOOP, mask_bins=4, mask_frames=4, valid_recordings=4)
    seeing = VisionStageConfig(
        **LOOP, embedding=16, shift=2, colour=0.05, region_weight=1.0, patch_weight=0.5, valid_pictures=3
    )
    reading = ThinkerStageConfig(**LOOP, context=16, valid_batches=1)
    tasks = {
        "a-thinker": ThinkerTask(reading, OMNI.thinker, data / "tokens", tmp_path / "tokenizer.model", 0),
        "b-audio-encoder": AudioTask(hearing, AUDIO, data / "mels", 0),
        "c-vision-encoder": VisionTask(seeing, VISION, Thinker(OMNI.thinker), tokenizer, data / "images", 0),
        "e-omni": omni_task(data, tokenizer, freeze=True),
    }
    found = {}
    for name, task in tasks.items():
        for step in (1, 2):
            samples = tmp_path / name / f"samples/step-{step:06d}"
            samples.mkdir(parents=True)
            with torch.no_grad():
                for module in task.modules.values():
                    module.eval()
                task.samples(step, samples)
        found[name] = read_training(tmp_path / name).samples
    assert [sample.about for sample in found["a-thinker"]] == [{"beginning": prompt} for prompt in PROMPTS]
    assert [sample.about["caption"] for sample in found["c-vision-encoder"]] == ["a dog", "a cat", "a fox"]
    assert {"speaker", "said"} == found["b-audio-encoder"][0].about.keys()
    assert all(sample.picture for name in ("b-audio-encoder", "c-vision-encoder") for sample in found[name][:3])
    assert [sample.about.get("task") for sample in found["e-omni"]] == ["dictation", "name", None]
    assert found["e-omni"][1].picture and found["e-omni"][2].sounds.keys() == {1, 2}
    for samples in found.values():
        assert all(sample.texts.keys() == {1, 2} or sample.sounds for sample in samples)


def test_pictures_of_what_is_seen_and_heard(tmp_path: Path) -> None:
    save_mel(torch.tensor([[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]).half(), tmp_path / "mel.png")
    with Image.open(tmp_path / "mel.png") as mel:
        assert mel.size == (3, 2) and [mel.getpixel((0, 0)), mel.getpixel((0, 1)), mel.getpixel((2, 1))] == [0, 255, 0]
    save_mel(torch.zeros(4, 2), tmp_path / "flat.png")
    save_picture(torch.full((3, 5, 4), 7, dtype=torch.uint8), tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (4, 5) and picture.getpixel((0, 0)) == (7, 7, 7)
