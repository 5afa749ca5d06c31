"""Devices and precisions, and moving batches to a device."""

from typing import Any

import pytest
import torch

from muomni import device as device_module
from muomni.device import Device, DeviceConfig, pick_device
from muomni.errors import UserError
from muomni.train.feed import to_device


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    def pick(name: Any, precision: Any) -> Device:
        return pick_device(DeviceConfig(name=name, precision=precision, threads=1, memory_gb=None))

    monkeypatch.setattr(device_module, "cpu_has_fast_bf16", lambda: False)
    assert not pick("cpu", "auto").bf16 and "fp32" in pick("cpu", "auto").description
    assert "slow" in pick("cpu", "bf16").description
    monkeypatch.setattr(device_module, "cpu_has_fast_bf16", lambda: True)
    with pick("cpu", "auto").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with pick("cpu", "fp32").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device.name: no CUDA"):
        pick("cuda", "auto")
    moved = to_device({"a": [torch.ones(1), 3], "b": (torch.ones(1), "x")}, torch.device("meta"))
    assert moved["a"][0].is_meta and moved["a"][1] == 3 and moved["b"][0].is_meta and moved["b"][1] == "x"
