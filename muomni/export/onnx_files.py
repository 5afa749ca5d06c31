"""The ONNX files of a model, and what is needed beside them to run it without PyTorch."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from muomni.checkpoint import CONFIG, write_json
from muomni.export.bundle import Bundle
from muomni.export.onnx_parts import (
    AudioEncoder,
    Characters,
    CodecDecoder,
    DenseMoE,
    Embedding,
    TalkerPart,
    ThinkerPart,
    VisionEncoder,
)
from muomni.export.onnx_sound import LogMelPart, vocoder_part
from muomni.griffin_lim import GriffinLim
from muomni.layers import Block, MoE, Stack
from muomni.omni import Omni
from muomni.tokenizer import Tokenizer

OPSET = 20
SCRIPT, TEXT = "run_onnx", "muomni_text"  # the example, and the package of the modules that it imports
Dynamic = Mapping[int, str]  # axes of any length, and their names


@dataclass(frozen=True)
class File:
    """One ONNX file.

    Attributes:
        name: without its ending.
        part: what it computes.
        inputs: of each an example, whose axes of any length are at least 2, and these axes.
        outputs: names.
    """

    name: str
    part: nn.Module
    inputs: Mapping[str, tuple[Tensor, Dynamic]]
    outputs: tuple[str, ...]


def write_onnx(
    folder: Path, model: Omni, tokenizer: Tokenizer, weights: str = "fp32", note: Callable[[str], None] = print
) -> None:
    """Write all parts, the tokenizer, the configuration, and the example.

    Args:
        folder: is made.
        model: with the weights, in fp32.
        tokenizer: its tokenizer.
        weights: of the Thinker, ``fp32`` or ``int8``.
        note: is told of each file.
    """
    folder.mkdir()
    for file in files(model):
        note(f"onnx: {file.name}")
        path = folder / f"{file.name}.onnx"
        write_file(path, file)
        if weights == "int8" and file.name == "thinker":
            quantise(path)
    tokenizer.save(folder)
    places = {"image_positions": model.image_positions}
    write_json(folder / CONFIG, {**model.cfg.model_dump(mode="json"), **places})
    write_example(folder)


def write_example(folder: Path) -> None:
    """Write the example and the modules that it needs, none of which imports torch."""
    sources = Bundle([f"muomni.export.runtime.{SCRIPT}"]).files(f"{TEXT}.")
    (folder / f"{SCRIPT}.py").write_text(sources.pop(f"{SCRIPT}.py"), encoding="utf-8")
    (folder / TEXT).mkdir()
    (folder / TEXT / "__init__.py").write_text('"""Text to tokens, and to what is spoken."""\n', encoding="utf-8")
    for name, source in sources.items():
        (folder / TEXT / name).write_text(source, encoding="utf-8")


def files(model: Omni) -> Iterator[File]:
    """All parts of a model."""
    cfg, model = model.cfg, without_lists(model)
    width, bands, size, codec = cfg.thinker.d_model, cfg.mel.n_mels, cfg.vision_encoder.image_size, cfg.codec
    vocoder = {"mel": (torch.zeros(5, bands), {0: "frames"})}
    if isinstance(model.vocoder, GriffinLim):
        vocoder["phase"] = (torch.zeros(cfg.mel.n_fft // 2 + 1, 6), {1: "frames_1"})
    yield File("embedding", Embedding(model), {"ids": (whole(2, 3), {0: "batch", 1: "length"})}, ("embeddings",))
    pixels = {"pixels": (torch.zeros(2, 3, size, size), {0: "pictures"})}
    yield File("vision_encoder", VisionEncoder(model), pixels, ("embeddings",))
    yield File("log_mel", LogMelPart(cfg.mel), {"wave": (torch.zeros(2, 1000), {0: "batch", 1: "samples"})}, ("mel",))
    hearing = {
        "mel": (torch.zeros(2, 37, bands), {0: "batch", 1: "frames"}),
        "lengths": (whole(2) + 30, {0: "batch"}),
    }
    yield File("audio_encoder", AudioEncoder(model), hearing, ("embeddings", "embedding_lengths"))
    reading = {
        "embeddings": (torch.zeros(2, 3, width), {0: "batch", 1: "length"}),
        "mask": (whole(2, 8) + 1, {0: "batch", 1: "past_and_length"}),
        "last": (whole(2), {0: "batch"}),
        **cache(model.thinker.stack),
    }
    yield File("thinker", ThinkerPart(model), reading, ("states", "logits", "keys", "values"))
    spelled = {
        "characters": (whole(2, 4), {0: "batch", 1: "characters"}),
        "states": (torch.zeros(2, 4, width), {0: "batch", 1: "characters"}),
        "voice": (whole(2), {0: "batch"}),
    }
    yield File("characters", Characters(model), spelled, ("character_states",))
    speaking = {
        "previous": (whole(2, codec.codebooks), {0: "batch"}),
        "character_states": (torch.zeros(2, 4, cfg.talker.d_model), {0: "batch", 1: "characters"}),
        "position": (whole(2), {0: "batch"}),
        "stay": (whole(2), {0: "batch"}),
        "noise": (torch.zeros(2, codec.codebooks, codec.codes), {0: "batch"}),
        **cache(model.talker.stack),
    }
    yield File("talker", TalkerPart(model), speaking, ("codes", "advance", "logits", "keys", "values"))
    codes = {"codes": (whole(2, 7, codec.codebooks), {0: "batch", 1: "frames"})}
    yield File("codec_decoder", CodecDecoder(model), codes, ("mel",))
    yield File("vocoder", vocoder_part(model.vocoder), vocoder, ("wave",))


def whole(*shape: int) -> Tensor:
    """Zeros, int64."""
    return torch.zeros(shape, dtype=torch.int64)


def cache(stack: Stack) -> dict[str, tuple[Tensor, Dynamic]]:
    """Inputs for a stack's keys and values ``[L, B, K, S, h]`` of 5 places."""
    block = stack.blocks[0]
    assert isinstance(block, Block)
    shape = (len(stack.blocks), 2, block.attention.kv_heads, 5, block.attention.head_width)
    return {name: (torch.zeros(shape), {1: "batch", 3: "past"}) for name in ("past_keys", "past_values")}


def without_lists(model: Omni) -> Omni:
    """The model, with mixtures of experts, if it has any, in a form that can be exported."""
    if not model.cfg.thinker.n_experts:
        return model
    model = deepcopy(model)
    for block in model.thinker.stack.blocks:
        if isinstance(block, Block) and isinstance(block.feed_forward, MoE):
            block.feed_forward = DenseMoE(block.feed_forward)
    return model


def write_file(path: Path, file: File) -> None:
    """Export one part."""
    examples = tuple(example for example, _ in file.inputs.values())
    axes = tuple(dict(dynamic) for _, dynamic in file.inputs.values())
    with torch.no_grad(), quiet():
        program: Any = torch.onnx.export(
            file.part.eval(),
            examples,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(file.inputs),
            output_names=list(file.outputs),
            dynamic_shapes=axes,
        )
    program.save(path, external_data=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the exporter says of its own workings off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def quantise(path: Path) -> None:
    """Keep the matrices of a file in int8, a scale for each of their columns; products are of int8, too."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]

    temporary = path.with_suffix(".int8")
    with quiet():
        quantize_dynamic(
            path, temporary, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8
        )
    temporary.replace(path)
