"""The files that transformers loads a model from, beside its code: weights and configurations."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from muomni.checkpoint import CONFIG, WEIGHTS, write_json
from muomni.codec import Quantiser
from muomni.export.bundle import Bundle
from muomni.export.template import CHAT_TEMPLATE
from muomni.omni import Omni
from muomni.tensor_files import write_tensors
from muomni.tokenizer import CONTROLS, EOT, MODEL_FILE, PAD, Tokenizer

ROOM = "muomni.export.hf"
MODULES = ("configuration", "modeling", "tokenization", "image_processing", "feature_extraction", "processing")
MODEL, PROCESSOR = "modeling_muomni.MuOmniForConditionalGeneration", "processing_muomni.MuOmniProcessor"
END, UNKNOWN = "<|end|>", "<unk>"


def write_transformers(folder: Path, model: Omni, tokenizer: Tokenizer) -> None:
    """Write everything that the Auto classes read.

    Args:
        folder: is there.
        model: with the weights, in fp32.
        tokenizer: its tokenizer.
    """
    write_tensors(folder / WEIGHTS, named_tensors(model), {"format": "pt"})
    tokenizer.save(folder)
    shutil.copymode(folder / MODEL_FILE, folder / WEIGHTS)  # safetensors lets nobody else read what it writes
    for name, values in configurations(model, tokenizer).items():
        write_json(folder / name, values)
    for name, source in Bundle(f"{ROOM}.{module}_muomni" for module in MODULES).files().items():
        (folder / name).write_text(source, encoding="utf-8")


def named_tensors(model: Omni) -> dict[str, Tensor]:
    """All weights, and the buffers that building the model computes; a shared matrix once."""
    found = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, module in model.named_modules():
        if isinstance(module, Quantiser):  # its average begins where its codes are, not where random ones were
            found[f"{name}.sums"] = module.codebook
    return {f"omni.{name}": tensor.detach().cpu().contiguous().clone() for name, tensor in found.items()}


def configurations(model: Omni, tokenizer: Tokenizer) -> dict[str, Mapping[str, Any]]:
    """The JSON files by name."""
    cfg = model.cfg
    stop = [tokenizer.end, tokenizer.eos]
    automatic = {"AutoConfig": "configuration_muomni.MuOmniConfig"} | dict.fromkeys(
        ("AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM"), MODEL
    )
    reading = {
        "AutoImageProcessor": "image_processing_muomni.MuOmniImageProcessor",
        "AutoFeatureExtractor": "feature_extraction_muomni.MuOmniFeatureExtractor",
        "AutoProcessor": PROCESSOR,
    }
    return {
        CONFIG: {
            "model_type": "muomni",
            "architectures": [MODEL.partition(".")[2]],
            "auto_map": automatic,
            "dtype": "float32",
            "sections": cfg.model_dump(mode="json"),
            "image_token_id": tokenizer.image,
            "audio_token_id": tokenizer.audio,
            "pad_token_id": tokenizer.pad,
            "eos_token_id": stop,
        },
        "generation_config.json": {
            "do_sample": False,
            "max_new_tokens": min(128, cfg.thinker.context // 4),
            "pad_token_id": tokenizer.pad,
            "eos_token_id": stop,
            "suppress_tokens": sorted(tokenizer.controls - set(stop)),
        },
        "tokenizer_config.json": {
            "tokenizer_class": "MuOmniTokenizer",
            "auto_map": {"AutoTokenizer": ["tokenization_muomni.MuOmniTokenizer", None]},
            "processor_class": "MuOmniProcessor",
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "model_max_length": cfg.thinker.context,
            "padding_side": "left",
            "pad_token": PAD,
            "eos_token": END,
            "unk_token": UNKNOWN,
            "extra_special_tokens": [EOT, *(name for name in CONTROLS if name != END)],
        },
        "preprocessor_config.json": {
            "auto_map": reading,
            "image_processor_type": "MuOmniImageProcessor",
            "feature_extractor_type": "MuOmniFeatureExtractor",
            "processor_class": "MuOmniProcessor",
            "image_size": cfg.vision_encoder.image_size,
            "image_positions": model.image_positions,
            "mel": cfg.mel.model_dump(mode="json"),
            "positions": cfg.audio_encoder.positions,
        },
        "processor_config.json": {
            "auto_map": {"AutoProcessor": PROCESSOR},
            "processor_class": "MuOmniProcessor",
        },
    }
