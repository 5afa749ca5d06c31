"""Batches in parts have the loss and the gradient of the whole, at every stage, and so has checkpointing."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import AUDIO, CODEC, GRIFFIN_LIM, MEL, OMNI, THINKER, VISION, VOCODER
from stage_tasks import CPU, LOOP, make_data, omni_task, talker_task
from test_loop import config
from torch import Tensor

from muomni.data.dialogues import Dialogue
from muomni.istft_vocoder import ISTFTVocoder
from muomni.omni import Omni
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer
from muomni.train.a_thinker import ThinkerStageConfig, ThinkerTask
from muomni.train.b_audio_encoder import AudioStageConfig, AudioTask
from muomni.train.c_vision_encoder import VisionStageConfig, VisionTask
from muomni.train.conversing import Sample
from muomni.train.d_codec import CodecStageConfig, CodecTask
from muomni.train.d_vocoder import VocoderTask
from muomni.train.e_omni import OmniTask
from muomni.train.parts import Parts, mean_values
from muomni.train.split import runs
from muomni.train.task import Recomputing, Splittable, Task

Small = tuple[Omni, Tokenizer]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of a few samples."""
    return make_data(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def tasks(data: Path, small: Small) -> dict[str, Task]:
    """Every stage's task but the vocoder's."""
    small[1].save(data / "tokenizer.model")
    reading = ThinkerStageConfig(**LOOP, context=24, valid_batches=1)
    hearing = AudioStageConfig(**LOOP, mask_bins=4, mask_frames=4, valid_recordings=4)
    seeing = VisionStageConfig(
        **LOOP, embedding=16, shift=2, colour=0.05, region_weight=1.0, patch_weight=0.5, valid_pictures=3
    )
    coding = CodecStageConfig(**LOOP, speaker="hibari", segment=16, commitment=0.25, valid_recordings=4)
    torch.manual_seed(0)
    return {
        "a": ThinkerTask(reading, THINKER, data / "tokens", data / "tokenizer.model", 0),
        "b": AudioTask(hearing, AUDIO, data / "mels", 0),
        "c": VisionTask(seeing, VISION, Thinker(OMNI.thinker), small[1], data / "images", 0),
        "codec": CodecTask(coding, CODEC, MEL, GRIFFIN_LIM, data / "mels", 0),
        "talker": talker_task(data, small[1]),
        "e": omni_task(data, small[1], freeze=True),
        "e with encoders": omni_task(data, small[1], freeze=False),
    }


def branching(task: OmniTask, pictured: Sample) -> Sample:
    """A picture with two questions, each in a branch of its own."""

    def said(role: str, *parts: dict[str, str]) -> dict[str, Any]:
        return {"role": role, "content": list(parts)}

    (name,) = pictured.pictures
    messages = [
        said("user", {"type": "image", "member": "0.png"}, {"type": "text", "text": "What is it?"}),
        said("assistant", {"type": "text", "text": "a dog"}),
        said("user", {"type": "text", "text": "Is it red?"}),
        said("assistant", {"type": "text", "text": "it is a red fox"}),
    ]
    dialogue = Dialogue("name", "what", messages, [], {"0.png": name})
    return Sample(dialogue, task.tokenizer, [task.omni.image_positions], apart=True)


def drawn(task: Task, seed: int) -> Any:
    """A random batch of a stage."""
    rng, draw = torch.Generator().manual_seed(seed), random.Random(seed)
    if isinstance(task, ThinkerTask):
        inputs, targets = torch.randint(384, (2, draw.randint(2, 7), 12), generator=rng)
        return inputs, targets.masked_fill(torch.rand(targets.shape, generator=rng) < 0.4, -100)
    batch = task.batch(seed, 0, rng)
    if isinstance(task, OmniTask):
        rows = draw.choices(task.train, k=draw.randint(2, 6))
        rows.insert(draw.randint(0, len(rows)), branching(task, next(s for s in task.train if s.pictures)))
        batch |= task.collate(rows, "train")
    return batch


def gradient(task: Task, batch: Any, parts: int) -> tuple[float, dict[str, float], dict[str, Tensor]]:
    """Loss, values and gradients of a batch that is computed in parts, as a training does it."""
    for module in task.modules.values():
        module.train().zero_grad()
    facts = {"parts": parts, "checkpointing": False}
    loss, values = Parts("stage", task, config(), 0, CPU, facts, ()).backward(0, 0, batch)
    grads = {
        f"{part}.{name}": p.grad.clone()
        for part, module in task.modules.items()
        for name, p in module.named_parameters()
        if p.grad is not None
    }
    return float(loss), {name: float(value) for name, value in values.items()}, grads


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor], note: str) -> None:
    """Gradients agree but for rounding, which counts against the whole gradient where a part of it is nearly zero."""
    assert found.keys() == wanted.keys(), note
    whole = torch.stack([grad.norm() for grad in wanted.values()]).norm()
    for name, grad in wanted.items():
        assert (found[name] - grad).norm() <= 3e-5 * grad.norm() + 1e-6 * whole, (note, name)


@pytest.mark.parametrize("stage", ["a", "b", "talker", "e", "e with encoders"])
def test_a_batch_in_parts_has_the_loss_and_the_gradient_of_the_whole(tasks: dict[str, Task], stage: str) -> None:
    task = tasks[stage]
    assert isinstance(task, Splittable)
    for seed in range(4):
        batch = drawn(task, seed)
        loss, values, grads = gradient(task, batch, 1)
        assert loss > 0 and len(grads) > 10
        for parts in (2, 4, 64):
            note = f"{stage}, seed {seed}, {parts} parts"
            cut = task.split(batch, parts)
            assert len(cut) > len(task.split(batch, 1)), note
            found, their_values, their_grads = gradient(task, batch, parts)
            assert found == pytest.approx(loss, rel=1e-5), note
            assert_same(their_grads, grads, note)
            assert their_values.keys() == values.keys(), note
            for name in values.keys() - {"padding", "talker_padding", "tokens"}:  # these are of what is computed
                assert their_values[name] == pytest.approx(values[name], rel=1e-4), (note, name)


def test_parts_are_as_equal_as_can_be_and_none_is_empty() -> None:
    for count in range(1, 40):
        for parts in range(1, 50):
            sizes = [rows.stop - rows.start for rows in runs(count, parts)]
            assert sum(sizes) == count and min(sizes) >= 1 and max(sizes) - min(sizes) <= 1
            assert len(sizes) == min(count, parts)


def test_values_of_parts_are_their_means_by_weight() -> None:
    none = torch.zeros(())
    found = [(none, {"a": 1.0, "b": torch.tensor(2.0)}, 0.25), (none, {"a": 5.0}, 0.75), (none, {"c": 7.0}, 0.0)]
    assert mean_values(found) == {"a": 4.0, "b": 2.0, "c": 7.0}


def test_losses_that_need_the_whole_batch_are_not_cut(tasks: dict[str, Task]) -> None:
    """In-batch negatives, codebooks that learn from the batch's statistics, a ratio of norms over the batch."""
    assert not isinstance(tasks["c"], Splittable) and not isinstance(tasks["codec"], Splittable)
    assert not hasattr(VocoderTask, "split")


@pytest.mark.parametrize("stage", ["a", "b", "c", "talker", "e"])
def test_checkpointing_stores_less_for_the_same_gradient(tasks: dict[str, Task], stage: str) -> None:
    task, stored = tasks[stage], list[int]()
    assert isinstance(task, Recomputing) and not task.checkpointing

    def keep(tensor: Tensor) -> Tensor:
        stored[-1] += tensor.numel()
        return tensor

    batch, found = drawn(task, 1), []
    for task.checkpointing in (False, True):  # noqa: B020
        stored.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            found.append(gradient(task, batch, 1))
    task.checkpointing = False
    assert found[0][0] == found[1][0] and stored[1] < 0.9 * stored[0]
    assert_same(found[1][2], found[0][2], stage)


def test_the_vocoders_gradient_is_the_same_with_checkpointing() -> None:
    torch.manual_seed(0)
    vocoder, mels = ISTFTVocoder(MEL, VOCODER.model_copy(update={"kind": "istft"})), torch.randn(2, 12, MEL.n_mels)
    grads = []
    for checkpointing in (False, True):
        vocoder.zero_grad()
        vocoder.waves(mels, checkpointing).square().mean().backward()
        grads.append({name: p.grad.clone() for name, p in vocoder.named_parameters() if p.grad is not None})
    assert_same(grads[1], grads[0], "vocoder")
