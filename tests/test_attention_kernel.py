"""The GPU's attention kernel, run by Triton's interpreter on a CPU."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

CHECK = """
import torch
from torch.nn.functional import scaled_dot_product_attention
from muomni.attention_kernel import BLOCK, attend_and_store

torch.manual_seed(0)
shapes = (4, 2, 8, 2 * BLOCK + 9, [2 * BLOCK + 3]), (4, 1, 24, 40, [0, 39, 7]), (6, 6, 16, 200, [BLOCK, 1])
for heads, keys, width, room, at in shapes:
    kv, at = torch.randn(len(at), room, 2, keys, width), torch.tensor(at)
    qkv, before = torch.randn(len(at), (heads + 2 * keys) * width), kv.clone()
    out = attend_and_store(qkv, kv, at, heads)
    for row, place in enumerate(at.tolist()):
        query, key, value = qkv[row].view(-1, width).split((heads, keys, keys))
        before[row, place] = torch.stack((key, value))
        seen = before[row, : place + 1].repeat_interleave(heads // keys, 2).transpose(0, 2)  # [H, 2, S, h]
        wanted = scaled_dot_product_attention(query[:, None], seen[:, 0], seen[:, 1])[:, 0]
        torch.testing.assert_close(out[row], wanted.flatten(), atol=1e-5, rtol=1e-5)
    assert torch.equal(kv, before)
print("same")
"""


def test_the_kernel_is_attention_over_what_is_filled() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "same\n", done.stderr
