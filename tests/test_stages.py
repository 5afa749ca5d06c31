"""What each training stage adds to the loop, on the smallest data and models."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import AUDIO, CODEC, GRIFFIN_LIM, MEL, OMNI, TALKER, VISION, small_omni
from stage_tasks import CPU, LOOP, TEXTS, aligned, make_data, omni_task, remade, talker_task

from muomni.data.dialogues import Dialogue, Dialogues
from muomni.data.pictures import box_weights, moved, rest_weights
from muomni.data.speech import load_recordings
from muomni.errors import UserError
from muomni.omni import Omni
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer
from muomni.train.b_audio_encoder import AudioStageConfig, AudioTask, fits
from muomni.train.c_vision_encoder import VisionStageConfig, VisionTask
from muomni.train.d_codec import CodecStageConfig, CodecTask
from muomni.train.d_talker import TalkerTask
from muomni.train.e_omni import OmniTask, Sample
from muomni.train.speaking import (
    ALIGNMENTS,
    aligned_utterances,
    collate_utterances,
    talker_loss,
    time_on_character,
)
from muomni.train.task import Task
from muomni.train.text_tower import text_states


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mel, image and conversation shards of a few samples."""
    return make_data(tmp_path_factory.mktemp("shards"))


def test_pictures_are_moved_as_by_a_window_over_repeated_edges() -> None:
    images = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    moves = torch.tensor([[-2, 3], [0, 0], [3, -1]])
    wide = torch.nn.functional.pad(images.float(), [3] * 4, mode="replicate").to(torch.uint8)
    wanted = [w[:, 3 + y : 11 + y, 3 + x : 11 + x] for w, (y, x) in zip(wide, moves.tolist(), strict=True)]
    assert torch.equal(moved(images, moves), torch.stack(wanted))


def test_a_target_longer_than_its_frames_is_counted_and_left_out(data: Path) -> None:
    cfg = AudioStageConfig(**LOOP, mask_bins=4, mask_frames=4, valid_recordings=4)
    task = AudioTask(cfg, AUDIO, data / "mels", 0)
    assert task.impossible == 1 and len(task.train) == len(TEXTS)
    assert task.evaluate()["impossible_targets"] == 1
    loss, _ = task.loss(task.batch(0, 0, torch.Generator().manual_seed(0)), 0)
    assert torch.isfinite(loss)
    assert fits("egg", 16, 2) and not fits("egg", 16, 1), "doubled letters need a blank between"
    assert not fits("...", 100, 4), "nothing to hear"


def test_stage_c_learns_names_from_pictures(data: Path, small: tuple[Omni, Tokenizer]) -> None:
    cfg = VisionStageConfig(
        **LOOP, embedding=16, shift=2, colour=0.05, region_weight=1.0, patch_weight=0.5, valid_pictures=3
    )
    torch.manual_seed(0)
    task = VisionTask(cfg, VISION, Thinker(OMNI.thinker), small[1], data / "images", 0)
    parameters = [p for m in task.modules.values() for p in m.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3)
    for step in range(60):
        loss, _ = task.loss(task.batch(step, 0, torch.Generator().manual_seed(step)), step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    scores = task.evaluate()
    assert scores["objects"] == 1.0 and scores["recall_1"] == 1.0 and scores["backgrounds"] == 1.0, scores


def test_a_box_weighs_the_patches_it_covers() -> None:
    weights = box_weights(torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.75, 1.0]]), 2)
    assert torch.allclose(weights, torch.tensor([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]]))


def test_the_background_is_what_no_box_covers() -> None:
    boxes = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 1.0]])
    weights = rest_weights(boxes, torch.tensor([0, 0, 1]), 3, 2)
    assert torch.allclose(weights[0], torch.tensor([0.02, 0.02, 0.02, 1.0])), "the last quarter is free"
    assert torch.allclose(weights[1:], torch.tensor([[0.02], [1.0]]).expand(2, 4)), "all covered, and nothing covered"


@torch.no_grad()
def test_texts_mean_the_same_alone_and_in_a_batch(small: tuple[Omni, Tokenizer]) -> None:
    thinker, texts = small[0].thinker, [*TEXTS, "a"]
    together = text_states(thinker, small[1], texts)
    alone = torch.cat([text_states(thinker, small[1], [text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_a_voice_without_recordings_stops_the_codec(data: Path) -> None:
    cfg = CodecStageConfig(**LOOP, speaker="nobody", segment=16, commitment=0.25, valid_recordings=4)
    with pytest.raises(UserError, match="nobody"):
        CodecTask(cfg, CODEC, MEL, GRIFFIN_LIM, data / "mels", 0)


@pytest.fixture(scope="module")
def talking(data: Path, small: tuple[Omni, Tokenizer]) -> TalkerTask:
    """Stage D's task with random frozen parts."""
    more = TALKER.model_copy(update={"voices": [*TALKER.voices, "nobody"]})
    with pytest.raises(UserError, match="talker.voices: no usable recording of nobody in the train split"):
        talker_task(data, small[1], more)
    return talker_task(data, small[1])


def test_the_talker_learns_from_aligned_frames(talking: TalkerTask) -> None:
    assert talking.left_out == 1, "the recording that is too short for its text"
    for utterance in talking.train:
        steps = utterance.position[1:] - utterance.position[:-1]
        assert utterance.position[0] == 0 and utterance.position[-1] == len(utterance.characters) - 1
        assert set(steps.tolist()) <= {0, 1} and len(utterance.codes) == len(utterance.position)
    assert time_on_character(torch.tensor([0, 0, 1, 2, 2, 2])).tolist() == [0, 1, 0, 0, 1, 2]
    rows = talking.train[:2]
    batch = collate_utterances(rows, TALKER.codes, 0.0, torch.Generator())
    first = rows[0]
    assert [u.voice for u in talking.train] == [0, 0, 1, 0]
    assert collate_utterances(talking.train, TALKER.codes, 0.0, torch.Generator())["voice"].tolist() == [0, 0, 1, 0]
    assert (batch["previous"][0, 0] == TALKER.codes).all(), "nothing before the first frame"
    assert torch.equal(batch["previous"][0, 1 : len(first.codes)], first.codes[:-1]), "shifted by one frame, once"
    assert batch["advance"][0].sum() == len(first.characters), "every character is left once, the last ends the speech"


def test_other_text_changes_the_talkers_loss(talking: TalkerTask) -> None:
    torch.manual_seed(0)
    batch = talking.batch(0, 0, torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW(talking.talker.parameters(), lr=3e-3)
    for _ in range(60):
        loss, _ = talking.loss(batch, 0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        own, _ = talker_loss(talking.talker, batch, talking.states(batch))
        other = batch | {"characters": batch["characters"].flip(0)}
        wrong, _ = talker_loss(talking.talker, other, talking.states(batch))
    assert wrong > own + 0.2, (float(own), float(wrong))


def test_recordings_are_encoded_in_the_order_of_the_shards(data: Path, small: tuple[Omni, Tokenizer]) -> None:
    """Another order makes other batches: the last bits would differ in the process that goes on after a kill."""
    task = omni_task(data, small[1], freeze=True)
    dialogues = Dialogues(data / "conversations", "train", MEL)
    mel = next(iter(dialogues.mels.values()))[:20]
    dialogues.items, dialogues.pictures, dialogues.mels = [], {}, {f"name-{7 * i % 12}": mel for i in range(12)}
    task.features.clear()
    task.prepare(dialogues)
    assert list(task.features) == list(dialogues.mels)


def test_stage_e_learns_the_answer_and_nothing_else(data: Path, small: tuple[Omni, Tokenizer]) -> None:
    task = omni_task(data, small[1], freeze=True)
    for sample in task.train:
        learned = sample.targets[sample.targets != -100].tolist()
        assert learned[-1] == small[1].end, "the end is learned"
        assert small[1].decode(learned) == sample.dialogue.answer
        # The target of a position is the next position's token: shifted once.
        places = (sample.targets != -100).nonzero()[:, 0]
        assert torch.equal(sample.targets[places[:-1]], sample.ids[places[1:]])
        assert sample.prompt == places[0] + 1


def test_questions_asked_apart_are_those_asked_alone(data: Path, small: tuple[Omni, Tokenizer]) -> None:
    def said(role: str, *parts: dict[str, str]) -> dict[str, Any]:
        return {"role": role, "content": list(parts)}

    picture = {"type": "image", "member": "0.png"}
    asked = [
        ({"type": "text", "text": f"What is {n}?"}, {"type": "text", "text": text}) for n, text in enumerate(TEXTS)
    ]
    messages = [said("user", picture, asked[0][0]), said("assistant", asked[0][1])]
    for question, answer in asked[1:]:
        messages += [said("user", question), said("assistant", answer)]
    whole = Sample(Dialogue("scene", "what", messages, [], {"0.png": "x"}), small[1], [5], apart=True)
    begin = 1 + 5
    assert whole.branches.tolist()[:begin] == [0] * begin and whole.branches[begin:].min() == 1
    for number, (question, answer) in enumerate(asked, 1):
        alone = [said("user", picture, question), said("assistant", answer)]
        one = Sample(Dialogue("scene", "what", alone, [], {"0.png": "x"}), small[1], [5])
        mine = whole.branches == number
        assert torch.equal(whole.ids[mine], one.ids[begin:]) and torch.equal(whole.targets[mine], one.targets[begin:])
        assert (one.targets[:begin] == -100).all() and not one.branches.any()


def test_features_of_frozen_encoders_are_those_of_the_encoders(data: Path, small: tuple[Omni, Tokenizer]) -> None:
    kept, live = (omni_task(data, small[1], freeze).train for freeze in (True, False))
    tasks = [omni_task(data, small[1], freeze) for freeze in (True, False)]
    assert set(tasks[0].frozen) == {"codec", "vocoder", "vision_encoder", "audio_encoder"}
    assert set(tasks[1].frozen) == {"codec", "vocoder"}
    with torch.no_grad():
        a, b = (t.embed(t.collate(rows, "train")) for t, rows in zip(tasks, (kept, live), strict=True))
    assert torch.allclose(a, b, atol=1e-4), float((a - b).abs().max())


def test_the_talkers_loss_does_not_reach_into_the_thinker(data: Path, small: tuple[Omni, Tokenizer]) -> None:
    task = omni_task(data, small[1], freeze=True)
    speech = task.batch(0, 0, torch.Generator().manual_seed(0))["speech"]
    loss, _ = talker_loss(task.omni.talker, speech, task.text_states(speech))
    loss.backward()
    assert all(p.grad is None for p in task.omni.thinker.parameters())
    assert task.omni.talker.condition.thinker.weight.grad is not None


def reached(task: OmniTask) -> set[str]:
    """The parts with a gradient that is more than what rounding leaves."""
    found = [(name.split(".")[0], p.grad) for name, p in task.omni.named_parameters() if p.grad is not None]
    return {part for part, grad in found if float(grad.abs().max()) > 1e-6}


def test_text_is_read_beside_the_answers_and_reaches_the_thinker_only(
    data: Path, small: tuple[Omni, Tokenizer]
) -> None:
    task = omni_task(data, small[1], True)
    batch = task.batch(0, 0, torch.Generator().manual_seed(0))
    assert torch.equal(batch["text"][0][:, 1:], batch["text"][1][:, :-1]) and batch["text"][0].shape == (2, 16)
    both, values = task.loss(batch, 0)
    without, _ = task.loss({key: value for key, value in batch.items() if key != "text"}, 0)
    assert float(both.detach()) == pytest.approx(float(without.detach()) + float(values["text_loss"]), rel=1e-4)
    (both - without).backward()
    assert reached(task) == {"thinker"}
    assert "loss_text" in task.evaluate()
    every = task.cfg.model_copy(update={"text_every": 2, "text_length": 4096})
    with pytest.raises(UserError, match="e_omni.text_length: 4096 is more than thinker.context"):
        remade(data, small[1], every)
    task = remade(data, small[1], every.model_copy(update={"text_length": 16}))
    assert ["text" in task.batch(step, 0, torch.Generator()) for step in range(4)] == [True, False, True, False]


def test_the_talkers_loss_does_not_reach_the_thinker(data: Path, small: tuple[Omni, Tokenizer]) -> None:
    task = omni_task(data, small[1], True)
    batch = task.batch(0, 0, torch.Generator().manual_seed(0))
    both, _ = task.loss(batch, 0)
    without, _ = task.loss({key: value for key, value in batch.items() if key != "speech"}, 0)
    (both - without).backward()
    assert reached(task) == {"talker"}


def test_a_task_without_conversations_in_the_mixture_is_an_error(data: Path, small: tuple[Omni, Tokenizer]) -> None:
    cfg = omni_task(data, small[1], True).cfg
    cfg = cfg.model_copy(update={"weights": cfg.weights.model_copy(update={"spoken_world": 1.0})})
    with pytest.raises(UserError, match="e_omni.weights: no conversation has the task 'spoken_world'"):
        OmniTask(
            cfg,
            small_omni(),
            data / ALIGNMENTS,
            small[1],
            data / "conversations",
            data / "mels",
            data / "tokens",
            0,
            CPU,
        )


def test_stage_e_needs_the_alignments_of_stage_d(data: Path, small: tuple[Omni, Tokenizer], tmp_path: Path) -> None:
    path = aligned(data, small[1])
    recordings = load_recordings(data / "mels", "train", TALKER.voices)
    with pytest.raises(UserError, match="made of other recordings"):
        aligned_utterances(path, recordings[::-1], TALKER.voices, small[1])
    with pytest.raises(UserError, match="no alignments there .*run `dvc repro --force d-talker`"):
        aligned_utterances(tmp_path / ALIGNMENTS, recordings, TALKER.voices, small[1])
    (tmp_path / ALIGNMENTS).write_bytes(b"broken")
    with pytest.raises(UserError, match="no alignments there"):
        aligned_utterances(tmp_path / ALIGNMENTS, recordings, TALKER.voices, small[1])


def test_every_stage_computes_in_bfloat16_what_it_computes_in_float32(
    data: Path, small: tuple[Omni, Tokenizer], talking: TalkerTask
) -> None:
    hearing = AudioStageConfig(**LOOP, mask_bins=4, mask_frames=4, valid_recordings=4)
    seeing = VisionStageConfig(
        **LOOP, embedding=16, shift=2, colour=0.05, region_weight=1.0, patch_weight=0.5, valid_pictures=3
    )
    coding = CodecStageConfig(**LOOP, speaker="hibari", segment=16, commitment=0.25, valid_recordings=4)
    torch.manual_seed(0)
    tasks: dict[str, Task] = {
        "b": AudioTask(hearing, AUDIO, data / "mels", 0),
        "c": VisionTask(seeing, VISION, Thinker(OMNI.thinker), small[1], data / "images", 0),
        "codec": CodecTask(coding, CODEC, MEL, GRIFFIN_LIM, data / "mels", 0),
        "talker": talking,
        "e": omni_task(data, small[1], freeze=False),
    }
    for name, task in tasks.items():
        losses = []
        for enabled in (False, True):
            for module in (*task.modules.values(), *task.frozen.values()):
                module.zero_grad()
                module.eval()
            batch = task.batch(0, 0, torch.Generator().manual_seed(0))
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss, _ = task.loss(batch, 0)
                with torch.no_grad():
                    task.evaluate()
            loss.backward()
            losses.append(float(loss.detach()))
        assert losses[1] == pytest.approx(losses[0], rel=0.05), (name, losses)
    codec = tasks["codec"]
    for module in codec.modules.values():
        module.train()  # the codebooks learn too
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = codec.loss(codec.batch(0, 0, torch.Generator().manual_seed(0)), 0)
    assert torch.isfinite(loss)
