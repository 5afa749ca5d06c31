"""Trains a small stage A or B, alone or as one of the processes of ``torchrun``: what `test_torchrun` starts.

Usage: ``torchrun_stage.py SETTINGS.json``, with ``stage``, ``data``, ``tokenizer``, ``folder``, ``loop`` (settings of
the training), perhaps ``stream_over_mb``, and perhaps a rank and a step: ``die`` of a SIGKILL, at the first start only,
``full`` of a disk without space, ``bad`` of an error that a user can mend.
"""

import errno
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from small_models import AUDIO, THINKER
from stage_tasks import CPU, LOOP

from muomni.errors import UserError
from muomni.train import loop, parallel
from muomni.train.a_thinker import ThinkerStageConfig, ThinkerTask
from muomni.train.b_audio_encoder import AudioStageConfig, AudioTask
from pipelines.run import main


def train(given: dict[str, Any]) -> None:
    data, settings = Path(given["data"]), LOOP | given["loop"]
    torch.manual_seed(0)
    cfg: ThinkerStageConfig | AudioStageConfig
    task: ThinkerTask | AudioTask
    if given["stage"] == "a":
        cfg = ThinkerStageConfig(**settings, context=16, valid_batches=1)
        task = ThinkerTask(cfg, THINKER, data / "tokens", Path(given["tokenizer"]), 0)
    else:
        limit = given.get("stream_over_mb", 4000.0)
        cfg = AudioStageConfig(**settings, mask_bins=4, mask_frames=4, valid_recordings=4, stream_over_mb=limit)
        task = AudioTask(cfg, AUDIO, data / "mels", 0)
    loop.REPORT_EVERY = 1
    rank, first = parallel.world()[0], os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event != "muomni.step" or not first:
            return
        if [rank, args[1]] == given.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if [rank, args[1]] == given.get("full"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "state.safetensors")
        if [rank, args[1]] == given.get("bad"):
            raise UserError(f"something that only process {rank} met; mend it")

    sys.addaudithook(watch)
    folder = Path(given["folder"])
    loop.fit(task, cfg, seed=0, device=CPU, state_dir=folder / "state", fingerprint="x", name="small", samples=False)
    if rank == 0:
        tensors = {f"{m}.{k}": v for m, module in task.modules.items() for k, v in module.state_dict().items()}
        torch.save(tensors, folder / "weights.pt")


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.environ["MUOMNI_STATE"] = str(Path(settings["folder"]) / "locks")
    main("small", lambda: train(settings))
