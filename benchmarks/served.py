"""What benchmarks of the server share: a model of a profile's size with random weights, and a server in a process."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from muomni.bench.rehearsal import Rehearsal
from muomni.checkpoint import make_card, save_checkpoint
from muomni.omni import Omni
from muomni.parameter_table import read_shapes
from muomni.params import read_params
from muomni.tokenizer import MODEL_FILE

START = 120  # seconds that a server may take to come up


def random_checkpoint(profile: str, folder: Path, seed: int = 0) -> Path:
    """A checkpoint of the whole model in a profile's size, with a tokenizer of random words.

    Args:
        profile: of profiles/.
        folder: an empty folder, gets the checkpoint and the tokenizer's data.
        seed: of the weights and words.
    """
    torch.manual_seed(seed)
    file = f"profiles/{profile}.yaml"
    model = Omni(read_shapes(file)[0]).eval()
    model.talker.advance.bias.data.fill_(-1.5)  # goes on after some frames, as a trained one does
    words = Rehearsal(read_params(file), folder, seed)
    words.tokenizer()
    card = make_card("omni", model, data={}, params={}, metrics={}, seconds=0.0)
    vocabulary = {MODEL_FILE: words.data / "tokenizer" / MODEL_FILE}
    save_checkpoint(folder / "omni", model.state_dict(), model.cfg.model_dump(mode="json"), card, vocabulary)
    return folder / "omni"


@dataclass(frozen=True)
class Served:
    """A server that is up.

    Attributes:
        host, port: where it listens.
        pid: its process.
    """

    host: str
    port: int
    pid: int


@contextmanager
def serving(checkpoint: Path, *options: str) -> Iterator[Served]:
    """A server of a checkpoint in a process of its own, ended by SIGTERM.

    Raises:
        RuntimeError: if it does not come up.
    """
    words = [sys.executable, "-m", "muomni.cli", "serve", "--checkpoint", str(checkpoint), "--port", "0", *options]
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as server:
        assert server.stderr is not None
        try:
            end = time.monotonic() + START
            while True:
                line = server.stderr.readline()
                if found := re.search(r"http://([\d.]+):(\d+)", line):
                    yield Served(found[1], int(found[2]), server.pid)
                    return
                if not line or time.monotonic() > end:
                    raise RuntimeError(f"the server did not come up: {line}")
        finally:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
