"""What `soak.py` has a model do, in turns that are the same each time: train, write, be served.

Each function goes on until the call that notes a turn raises an exception.
"""

import base64
import io
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from muomni.bench.tasks import build, settings
from muomni.decoder import Decoder
from muomni.device import pick_device
from muomni.generate import Session, last, transcribe
from muomni.omni import Omni
from muomni.params import Params
from muomni.reading_aloud import say
from muomni.sampling import Sampling
from muomni.tokenizer import Tokenizer
from muomni.train.loop import fit
from muomni.train.task import Task

FOREVER = 10_000_000  # steps: the time ends it
A_TURN = 10  # training steps

Turns = Callable[[float], None]  # notes the CPU seconds of a turn


def train(turn: Turns, params: Params, folder: Path) -> None:
    """Stage E until the time is up."""
    device = pick_device(params.device)
    task = build(params, "e-omni", folder / "data", device)
    loss, seen = task.loss, [0, time.process_time()]

    def counted(batch: Any, step: int) -> Any:
        if step and step % A_TURN == 0 and step != seen[0]:
            turn(time.process_time() - seen[1])
            seen[:] = [step, time.process_time()]
        return loss(batch, step)

    task.loss = counted  # type: ignore[method-assign]
    cfg = settings(params, "e-omni").model_copy(
        update={"steps": FOREVER, "eval_every": 4 * A_TURN, "save_every": 4 * A_TURN}
    )
    fitted: Task = task
    fit(fitted, cfg, seed=params.seed, device=device, state_dir=folder / "state", fingerprint="soak", name="soak")


def things(seed: int) -> tuple[Image.Image, np.ndarray, bytes, bytes]:
    """A picture and a recording, in memory and as files."""
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8))
    wave = (0.1 * rng.standard_normal(32000)).astype(np.float32)
    png, wav = io.BytesIO(), io.BytesIO()
    picture.save(png, "PNG")
    soundfile.write(wav, wave, 16000, format="WAV")
    return picture, wave, png.getvalue(), wav.getvalue()


def answer(turn: Turns, model: Omni, tokenizer: Tokenizer, seed: int) -> None:
    """What `muomni chat`, `say` and `transcribe` do, and a conversation that outgrows the context."""
    picture, wave, png, wav = things(seed)
    decoder = Decoder(model.thinker)
    while True:
        began = time.process_time()
        session = Session(model, tokenizer, decoder=decoder)
        last(session.ask("What is to the left of it?", images=[picture], max_tokens=24))
        last(session.ask("And what is that?", max_tokens=24, speak=True, stream=True))
        last(session.ask(None, audio=[wav], max_tokens=24, sampling=Sampling(temperature=1.0)))
        for number in range(8):
            last(session.ask(f"What is number {number}?", images=[png], max_tokens=24, seed=seed + number))
        events = session.ask("Somebody leaves in the middle.", max_tokens=24, speak=True)
        next(events), next(events)
        events.close()  # type: ignore[attr-defined]
        transcribe(model, tokenizer, wave, max_tokens=24)
        for _ in say(model, tokenizer, "There are two dogs. One is red.", stream=True):
            pass
        turn(time.process_time() - began)


def serve(turn: Turns, checkpoint: Path, seed: int) -> None:
    """Rows as MLflow's server gives them to the registered model, some of them bad."""
    import pandas as pd  # type: ignore[import-untyped]

    from muomni.errors import UserError
    from pipelines.pyfunc_model import CHECKPOINT, MuOmni

    _, _, png, wav = things(seed)
    served = MuOmni()
    served.load_context(SimpleNamespace(artifacts={CHECKPOINT: str(checkpoint)}))  # type: ignore[arg-type]
    image, audio = (base64.b64encode(data).decode() for data in (png, wav))
    good = pd.DataFrame(
        [
            {"text": "What is it?", "image": image, "audio": None, "speak": False},
            {"text": None, "image": None, "audio": audio, "speak": True},
        ]
    )
    bad = pd.DataFrame([{"text": "What is it?", "image": image[:200], "audio": None, "speak": False}])
    while True:
        began = time.process_time()
        for number in range(6):
            served.predict(None, good, {"max_tokens": 24, "seed": seed + number})  # type: ignore[arg-type]
            try:
                served.predict(None, bad)  # type: ignore[arg-type]
                raise AssertionError("a damaged picture was accepted")
            except UserError:
                pass
        turn(time.process_time() - began)
