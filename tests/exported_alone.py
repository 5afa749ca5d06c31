"""Runs in a process of its own where muomni cannot be imported: what an exported folder gives for some inputs.

``python exported_alone.py FOLDER INPUTS OUTPUTS``: both files are of `torch.save`.
"""

import contextlib
import io
import os
import re
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any


class NotInstalled(MetaPathFinder):
    """As if the package were not there."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuse it."""
        if name.partition(".")[0] in ("muomni", "pipelines"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def tokenised(folder: str, given: dict[str, Any]) -> dict[str, Any]:
    """What tokenizer and chat template give."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    templates = []
    for messages, prompt in given["conversations"]:
        try:
            templates.append(tokenizer.apply_chat_template(messages, add_generation_prompt=prompt)["input_ids"])
        except Exception as error:
            templates.append(str(error))
    texts = [tokenizer(text)["input_ids"] for text in given["texts"]]
    return {
        "templates": templates,
        "texts": texts,
        "decoded": [tokenizer.decode(ids) for ids in texts],
        "split": tokenizer("a <|user|> b", split_special_tokens=True)["input_ids"],
        "control": tokenizer("<|user|>")["input_ids"],
        "padded": tokenizer(["a", "a b c d"], padding=True, return_tensors="pt")["input_ids"],
    }


def answered(folder: str, given: dict[str, Any]) -> dict[str, Any]:
    """What the model computes."""
    import torch
    from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    found: dict[str, Any] = {"state": {name: x for name, x in model.state_dict().items() if "omni" in name}}
    whole = AutoModel.from_pretrained(folder, trust_remote_code=True)
    found["classes"] = type(whole).__name__, type(model).__name__, type(processor).__name__
    pictures = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)(given["pictures"])
    found["pixels"] = pictures["pixel_values"]
    extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
    found["features"] = dict(extractor(given["recordings"], sampling_rate=extractor.sampling_rate))
    with torch.no_grad():
        found["logits"] = model(input_ids=given["ids"]).logits
        first = model(input_ids=given["ids"][:, :5])
        more = [model(input_ids=given["ids"][:, i : i + 2], cache=first.cache).logits for i in range(5, 9, 2)]
        found["cached"] = torch.cat([first.logits, *more], dim=1)
        found["image_states"] = model.get_image_features(found["pixels"])
        found["audio_states"] = model.get_audio_features(**found["features"])
    content = [{"type": "image"}, {"type": "audio"}, {"type": "text", "text": given["question"]}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    media = {"images": given["pictures"][:1], "audio": given["recordings"][:1]}
    inputs = processor(text=prompt, **media, return_tensors="pt")
    found["prompt"] = inputs["input_ids"]
    size = inputs["input_ids"].shape[1]
    found["answer"] = model.generate(**inputs, max_new_tokens=12)[0, size:]
    found["uncached"] = model.generate(**inputs, max_new_tokens=12, use_cache=False)[0, size:]
    found["drawn"] = model.generate(**inputs, max_new_tokens=12, do_sample=True, num_return_sequences=3, top_k=1)
    spoken = model.generate_speech(
        processor.tokenizer, **inputs, max_new_tokens=12, voice=given["voice"], speech_seed=3
    )
    found["codes"], found["wave"] = spoken.codes, spoken.waveform
    found["said"] = model.say(processor.tokenizer, given["text"], seed=5).waveform
    short = processor.apply_chat_template([{"role": "user", "content": given["question"]}], add_generation_prompt=True)
    # Two pictures in one row and none in the other: padding, and to whom a picture belongs.
    two = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "image"}]}], add_generation_prompt=True
    )
    rows = processor(text=[short, two], images=given["pictures"][:2], return_tensors="pt", padding=True)
    found["batch"] = model.generate(**rows, max_new_tokens=8)[:, rows["input_ids"].shape[1] :]
    alone = [
        processor(text=short, return_tensors="pt"),
        processor(text=two, images=given["pictures"][:2], return_tensors="pt"),
    ]
    found["single"] = [model.generate(**row, max_new_tokens=8)[0, row["input_ids"].shape[1] :] for row in alone]
    beams = model.generate(**rows, max_new_tokens=8, num_beams=2, do_sample=False)
    found["beams"] = beams[:, rows["input_ids"].shape[1] :]
    found["single_beams"] = [
        model.generate(**row, max_new_tokens=8, num_beams=2)[0, row["input_ids"].shape[1] :] for row in alone
    ]
    labels = model(input_ids=given["ids"], labels=given["ids"])
    labels.loss.backward()
    found["loss"] = float(labels.loss)
    found["learns"] = float(model.omni.thinker.stack.blocks[0].attention.query.weight.grad.abs().sum()) > 0
    model.save_pretrained(given["saved"])
    processor.save_pretrained(given["saved"])
    again = AutoModel.from_pretrained(given["saved"], trust_remote_code=True)
    AutoProcessor.from_pretrained(given["saved"], trust_remote_code=True)
    with torch.no_grad():
        found["saved_logits"] = again(input_ids=given["ids"]).logits
    return found


def readme(folder: str) -> str:
    """What the code of the folder's README prints."""
    code = re.findall(r"```python\n(.*?)```", Path(folder, "README.md").read_text(), re.DOTALL)
    os.chdir(folder)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec("\n".join(code), {})
    return said.getvalue()


def main() -> None:
    """See the module's text."""
    folder, given, out = sys.argv[1:]
    sys.meta_path.insert(0, NotInstalled())
    import torch

    inputs = torch.load(given, weights_only=False)
    found = {**tokenised(folder, inputs), **answered(folder, inputs), "readme": readme(folder)}
    found["packages"] = sorted(name for name in sys.modules if "." not in name)
    torch.save(found, out)


if __name__ == "__main__":
    main()
