"""Streamed speech: when the first sound comes, how much faster than its own duration it is made, and what it costs.

``python benchmarks/streaming.py [--checkpoint checkpoints/omni] [--sentences 40] [--seed 0]`` prints JSON. Sentences
come from the test split of the speech corpus, in an order drawn from the seed. Whole and streamed speech alternate.
With ``--profile base`` a model of that size and random weights says the sentences, for its times alone;
``--minutes 5`` has the sentences said over and over for that long, and prints how the memory grows.
"""

import argparse
import json
import random
import statistics
import time
from pathlib import Path

import psutil
import torch

from muomni.data.utterances import read_utterances
from muomni.decoder import Decoder
from muomni.evaluate.judge import find_judge
from muomni.evaluate.speech import judged
from muomni.generate import AudioEvent, Session, TextEvent
from muomni.mel import log_mel
from muomni.omni import Omni, load_omni
from muomni.parameter_table import read_shapes
from muomni.prompts import read_aloud
from muomni.reading_aloud import say
from muomni.tokenizer import Tokenizer


def memory(model: Omni, tokenizer: Tokenizer, texts: list[str], minutes: float) -> dict[str, float]:
    """Say a long reply in pieces; resident memory after a tenth of it and at its end, and the real-time factor."""
    rate, process = model.cfg.mel.sample_rate, psutil.Process()
    wanted, samples, early, begin = int(60 * minutes * rate), 0, 0.0, time.perf_counter()
    while samples < wanted:
        for event in say(model, tokenizer, " ".join(texts), stream=True):
            samples += len(event.wave)
            if not early and samples > wanted / 10:
                early = process.memory_info().rss / 2**20
            if samples >= wanted:
                break
    return {
        "minutes": round(samples / rate / 60, 2),
        "MB after a tenth": round(early),
        "MB at the end": round(process.memory_info().rss / 2**20),
        "real-time factor": round((time.perf_counter() - begin) / (samples / rate), 3),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="checkpoints/omni")
    parser.add_argument("--corpus", default="data/corpus/speech")
    parser.add_argument("--sentences", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", default="", help="a model of this size with random weights")
    parser.add_argument("--minutes", type=float, default=0, help="how long a reply to say")
    options = parser.parse_args()
    model, tokenizer, _ = load_omni(Path(options.checkpoint), "cpu")
    if options.profile:
        torch.manual_seed(options.seed)
        model = Omni(read_shapes(f"profiles/{options.profile}.yaml")[0]).eval()
        model.talker.advance.bias.data.fill_(-1.5)  # goes on after some frames, as a trained one does
    decoder = Decoder(model.thinker)
    logits = decoder.logits  # all of them are computed, and those that the tokenizer knows are used
    decoder.logits = lambda state: logits(state)[..., : tokenizer.vocab_size]  # type: ignore[method-assign]
    rate, judge = model.cfg.mel.sample_rate, None if options.profile else find_judge("auto")
    rows = [r["text"] for r in read_utterances(options.corpus) if r["split"] == "test" and r["speaker"] == "hibari"]
    random.Random(options.seed).shuffle(rows)
    texts = rows[: options.sentences]
    if options.minutes:
        print(json.dumps(memory(model, tokenizer, texts, options.minutes), indent=1))
        return
    list(say(model, tokenizer, texts[0], stream=True))  # what is made once

    heard: dict[str, list[str]] = {"whole": [], "streamed": []}
    factors: dict[str, list[float]] = {"whole": [], "streamed": []}
    differences, waits = [], []
    for text in texts:
        mels = {}
        for name in heard:
            begin = time.perf_counter()
            wave = torch.cat([event.wave for event in say(model, tokenizer, text, stream=name == "streamed")])
            factors[name].append((time.perf_counter() - begin) / (len(wave) / rate))
            mels[name] = log_mel(wave, model.cfg.mel)
            if judge:
                heard[name].append(judge.hear(wave))
        differences.append(float((mels["whole"] - mels["streamed"]).abs().mean()))
        first = 0.0
        for event in Session(model, tokenizer, decoder=decoder).ask(read_aloud(text), speak=True, stream=True):
            if isinstance(event, TextEvent) and not first:
                first = time.perf_counter()
            if isinstance(event, AudioEvent):
                waits.append(time.perf_counter() - first)
                break
    found = {
        "sentences": len(texts),
        "first sound after the first text, ms, median": round(1000 * statistics.median(waits)),
        "most": round(1000 * max(waits)),
        "real-time factor, median": {name: round(statistics.median(values), 3) for name, values in factors.items()},
        "log-mel difference between whole and streamed, nats": round(statistics.mean(differences), 3),
    }
    if judge:
        found["CER"] = {name: judged(texts, said, options.seed) for name, said in heard.items()}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
