"""How fast a model of a profile's size writes, speaks and reads, with random weights."""

import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from muomni.bench.clock import interleave
from muomni.bench.components import Case
from muomni.bench.tasks import omni_config
from muomni.decoder import Decoder
from muomni.device import Device, cpu_has_fast_bf16
from muomni.generate import AudioEvent, Session, TextEvent
from muomni.matrix import Weights
from muomni.mel import log_mel
from muomni.omni import Omni
from muomni.params import Params
from muomni.sampling import Request, Sampling, answer_batch, answer_tokens
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer

TOKENS = 256  # of a reply
WIDTHS: dict[Weights, int] = {"fp32": 4, "bf16": 2, "int8": 1}  # bytes of a weight
SECONDS = 4  # of speech that codec, Talker and vocoder make
QUESTION = "What is to the left of the small red house, and how many dogs are there behind it?"


def random_model(p: Params, device: Device) -> Omni:
    """The whole model with weights as drawn."""
    torch.manual_seed(p.seed)
    model = Omni(omni_config(p)).to(device.device).eval()
    model.talker.advance.bias.data.fill_(-1.5)  # goes on after some frames, as a trained one does
    return model


def decoders(thinker: Thinker, device: Device) -> dict[Weights, Decoder]:
    """The Thinker laid out for writing in each kind of weights that the device multiplies fast."""
    slow = device.device.type == "cpu" and not cpu_has_fast_bf16()
    return {kind: Decoder(thinker, kind) for kind in WIDTHS if not (slow and kind == "bf16")}


def generation(decoder: Decoder, batch: int, tokens: int) -> Case:
    """Greedy decoding with the cache, of one reply or of several together."""
    start = decoder.embed(torch.ones(1, 1, dtype=torch.int64, device=decoder.device))

    def alone() -> None:
        for _ in answer_tokens(decoder, start, (), tokens, Sampling(), torch.Generator()):
            pass

    def together() -> None:
        asked = [Request(start[0], (), tokens, Sampling(), torch.Generator()) for _ in range(batch)]
        for _ in answer_batch(decoder, asked):
            pass

    return Case(alone if batch == 1 else together, batch * tokens, "tokens")


def read_bytes(thinker: Thinker, width: int) -> float:
    """Bytes of weights that one token's decoding reads, each of `width` bytes: all but the table of embeddings."""
    tied = thinker.cfg.tie_embeddings
    names = (w.numel() for name, w in thinker.named_parameters() if tied or not name.startswith("embedding"))
    return width * float(sum(names))


def first_answer(model: Omni, tokenizer: Tokenizer, rounds: int = 7) -> dict[str, float]:
    """Seconds from a question to its first token, and from the first text to the first sound, medians."""
    text, sound = [], []
    for number in range(rounds + 1):
        began, written = time.perf_counter(), 0.0
        for event in Session(model, tokenizer).ask(QUESTION, speak=True, stream=True, seed=number, max_tokens=48):
            if isinstance(event, TextEvent) and not written:
                written = time.perf_counter()
            if isinstance(event, AudioEvent):
                if number:  # the first round makes what is made once
                    text.append(written - began)
                    sound.append(time.perf_counter() - written)
                break
    if not text:
        return {}
    return {"first token": statistics.median(text), "first sound": statistics.median(sound)}


def speech_cases(model: Omni, device: Device) -> dict[str, Case]:
    """Talker, codec and vocoder making some seconds of speech; amounts are seconds."""
    cfg = model.cfg
    frames = 50 * SECONDS
    codes = torch.randint(cfg.codec.codes, (1, frames, cfg.codec.codebooks), device=device.device)
    mel = torch.randn(frames, cfg.mel.n_mels, device=device.device) - 4
    characters = torch.randint(1, 27, (60,), device=device.device)
    states = torch.randn(60, cfg.thinker.d_model, device=device.device)
    made, _ = model.talker.generate(characters, states, torch.Generator().manual_seed(0))
    return {
        "Talker": Case(
            lambda: model.talker.generate(characters, states, torch.Generator().manual_seed(0)),
            len(made) / 50,
            "seconds",
        ),
        "codec, codes to frames": Case(lambda: model.codec.decode(codes), SECONDS, "seconds"),
        f"vocoder ({cfg.vocoder.kind})": Case(lambda: model.vocoder(mel), SECONDS, "seconds"),
    }


def reading_cases(p: Params, tokenizer: Tokenizer, data: Path) -> dict[str, Case]:
    """The log-mel front-end, on seconds of sound, and the tokenizer, on bytes of text."""
    wave = torch.from_numpy(np.random.default_rng(0).standard_normal(10 * p.mel.sample_rate).astype(np.float32))
    text = " ".join(itertools.islice(itertools.cycle(QUESTION.split()), 20_000))
    return {
        "log-mel": Case(lambda: log_mel(wave, p.mel), 10, "seconds"),
        "tokenizer": Case(lambda: tokenizer.encode(text), len(text.encode()), "bytes"),
    }


def rates(cases: dict[str, Case], seconds: float) -> dict[str, dict[str, Any]]:
    """Median time and rate of each case."""
    runs: dict[str, Callable[[], object]] = {name: case.run for name, case in cases.items()}
    with torch.inference_mode():
        times = interleave(runs, seconds)
    found = {}
    for name, case in cases.items():
        median = statistics.median(times[name])
        found[name] = {"seconds": median, "rate": case.amount / median, "unit": case.unit, "runs": len(times[name])}
    return found
