"""Weights of evaluations: whole folders, the newest few, and all or nothing for whoever takes one."""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from muomni.train.weights import KEPT, keep_weights, remove


def test_the_newest_few_are_kept_whole(tmp_path: Path) -> None:
    root, model = tmp_path / "checkpoints", nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    model[0].bias = nn.Parameter(model[1].weight.detach())  # shared memory, which safetensors would refuse
    for step in range(10, 60, 10):
        keep_weights(root, step, {"part": model}, {"valid_loss": 1.0 / step, "valid_odd": math.nan})
    assert sorted(p.name for p in root.iterdir()) == [f"step-0000{step}" for step in (30, 40, 50)][-KEPT:]
    newest = root / "step-000050"
    assert json.loads((newest / "metrics.json").read_text()) == {"step": 50, "valid_loss": 0.02}
    found = load_file(newest / "model.safetensors")
    assert torch.equal(found["part/0.weight"], model[0].weight) and "part/1.running_mean" in found
    keep_weights(root, 50, {"part": model}, {"valid_loss": 0.5})  # a resumed training comes there again
    assert json.loads((newest / "metrics.json").read_text())["valid_loss"] == 0.5


def test_one_that_was_taken_is_left_alone(tmp_path: Path) -> None:
    root, model = tmp_path / "checkpoints", nn.Linear(1, 1)
    keep_weights(root, 10, {"part": model}, {})
    taken = root / ".sending-step-000010"
    (root / "step-000010").rename(taken)
    remove(root / "step-000010")
    for step in range(20, 60, 10):
        keep_weights(root, step, {"part": model}, {})
    assert (taken / "model.safetensors").is_file() and len(list(root.glob("step-*"))) == KEPT
