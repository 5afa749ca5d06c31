"""Devices and precisions, and moving batches to a device."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from muomni import device as device_module
from muomni.device import Device, DeviceConfig, cpu_has_fast_bf16, pick_device
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


@pytest.mark.skipif(not cpu_has_fast_bf16(), reason="this CPU is not fast in bf16, so PyTorch makes no code for it")
def test_products_of_ever_new_shapes_do_not_fill_the_memory() -> None:
    """By themselves PyTorch and oneDNN keep code for 1,024 shapes each: gigabytes in an hour of stage E."""
    code = (
        "import muomni, torch; from muomni.bench.clock import resident_mb\n"
        "weight = torch.randn(192, 192, dtype=torch.bfloat16)\n"
        "def multiply(rows): return torch.randn(rows, 192, dtype=torch.bfloat16) @ weight\n"
        "multiply(7); before = resident_mb()\n"
        "for rows in range(8, 608): multiply(rows)\n"
        "print(resident_mb() - before)"
    )

    def grown(**kept: str) -> float:
        env = {key: text for key, text in os.environ.items() if "CACHE_CAPACITY" not in key} | kept
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        return float(done.stdout)

    assert grown() < 150 < grown(LRU_CACHE_CAPACITY="1024", ONEDNN_PRIMITIVE_CACHE_CAPACITY="1024")
