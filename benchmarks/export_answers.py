"""Whether an exported model says the very words that the model says: by onnxruntime, with int8, and by transformers.

``python benchmarks/export_answers.py [--checkpoint checkpoints/omni] [--pictures SHARD.tar]`` exports the model, asks
questions in text and about the pictures of a shard, and has sentences written down that the model said itself. Prints
JSON: how many were asked of each kind, and how many answers are the same.
"""

import argparse
import json
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from muomni.cli import main as muomni
from muomni.errors import ending_in_one_line
from muomni.export.onnx_files import quantise
from muomni.generate import Session, last
from muomni.omni import Omni, load_omni
from muomni.prompts import DICTATION
from muomni.reading_aloud import say
from muomni.tokenizer import Tokenizer

BEGINNINGS = (
    "Which is bigger, a mountain or",
    "Is a dog an animal or",
    "Can a parrot fly or",
    "What colour is",
    "What is",
    "Where does one find",
)
THINGS = [
    "a microphone",
    "the sun",
    "a banana",
    "an apple",
    "a horse",
    "a house",
    "water",
    "a bee",
    "the moon",
    "a car",
]
SENTENCES = (
    "There are two dogs.",
    "The cat is above the red circle.",
    "A mountain is bigger than a microphone.",
    "Put the shoe under the bicycle.",
    "The green circle is left of the apple.",
)


class Question(NamedTuple):
    """What is asked: text, perhaps with the bytes of a picture, or samples float32 ``[T]``."""

    kind: str
    text: str
    picture: bytes | None = None
    samples: Any = None


def questions(model: Omni, tokenizer: Tokenizer, shard: str | None, count: int) -> Iterator[Question]:
    """All questions."""
    for beginning in BEGINNINGS:
        for thing in THINGS:
            yield Question("text", f"{beginning} {thing}?")
    for seed in range(4):
        for sentence in SENTENCES:
            wave = torch.cat([piece.wave for piece in say(model, tokenizer, sentence, seed)])
            yield Question("dictation", DICTATION, samples=wave.numpy())
    if shard:
        with tarfile.open(shard) as archive:
            names = [name for name in archive.getnames() if name.endswith(".png")][:count]
            for name in names:
                file = archive.extractfile(name)
                assert file is not None
                yield Question("picture", "What is in the picture?", picture=file.read())


def by_onnxruntime(folder: Path, tokenizer: Tokenizer) -> Callable[[Question], str]:
    """Answers of a folder's ONNX files."""
    from muomni.export.runtime.run_onnx import Runtime

    runtime, place = Runtime(folder), folder / "picture"

    def ask(question: Question) -> str:
        pictures, recordings = [], []
        if question.picture is not None:
            place.write_bytes(question.picture)
            pictures.append(runtime.see(str(place)))
        if question.samples is not None:
            recordings.append(runtime.hear(question.samples))
        prompt = runtime.prompt(question.text, pictures, recordings)
        return tokenizer.decode([token for token, _ in runtime.write(prompt, 64)])

    return ask


def by_transformers(folder: Path) -> Callable[[Question], str]:
    """Answers of the folder in transformers."""
    from transformers import AutoModelForCausalLM, AutoProcessor

    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)

    def ask(question: Question) -> str:
        media: dict[str, Any] = {}
        content: list[dict[str, str]] = []
        if question.picture is not None:
            content, media["images"] = [*content, {"type": "image"}], [question.picture]
        if question.samples is not None:
            content, media["audio"] = [*content, {"type": "audio"}], [np.asarray(question.samples)]
        content.append({"type": "text", "text": question.text})
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(text=prompt, return_tensors="pt", **media)
        answer = model.generate(**inputs, max_new_tokens=64)[0, inputs["input_ids"].shape[1] :]
        return str(processor.decode(answer, skip_special_tokens=True))

    return ask


def main() -> None:
    """Ask and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="checkpoints/omni")
    parser.add_argument("--pictures", metavar="SHARD.tar", help="such as data/shards/images/test-000000.tar")
    parser.add_argument("--count", type=int, default=60, help="pictures at most (default: 60)")
    options = parser.parse_args()
    with ending_in_one_line(), tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "exported"
        if code := muomni(["export", str(folder), "--checkpoint", options.checkpoint]):
            sys.exit(code)
        model, tokenizer, _ = load_omni(options.checkpoint)
        sides = {"onnxruntime": by_onnxruntime(folder / "onnx", tokenizer), "transformers": by_transformers(folder)}
        asked = list(questions(model, tokenizer, options.pictures, options.count))
        session, wanted = Session(model, tokenizer), []
        for kind, text, picture, samples in asked:
            session.reset()
            pictures = [] if picture is None else [picture]
            recordings = [] if samples is None else [samples]
            wanted.append((kind, last(session.ask(text, pictures, None, recordings, max_tokens=64)).text))
        found = {"asked": Counter(question.kind for question in asked)}
        for name, ask in sides.items():
            found[name] = same(ask, asked, wanted)
        quantise(folder / "onnx" / "thinker.onnx")
        found["onnxruntime, int8"] = same(by_onnxruntime(folder / "onnx", tokenizer), asked, wanted)
        print(json.dumps(found, indent=1))


def same(ask: Callable[[Question], str], asked: list[Question], wanted: list[tuple[str, str]]) -> Counter[str]:
    """Of each kind the answers that are the same."""
    return Counter(kind for question, (kind, text) in zip(asked, wanted, strict=True) if ask(question) == text)


if __name__ == "__main__":
    main()
