"""The README of an exported model: what it is, where it comes from, what it reaches, how it is used."""

from collections.abc import Mapping, Sequence
from typing import Any

from muomni.checkpoint_card import parts
from muomni.omni import Omni
from muomni.passport import sections
from muomni.passport.blocks import Part, Points, Text
from muomni.passport.limits import limits
from muomni.passport.measured import Measured
from muomni.prompts import DICTATION

HEAD = """\
---
license: mit
library_name: {library}
pipeline_tag: any-to-any
language: en
tags: [muomni, custom_code]
---

# muOmni

A tiny omni model, trained from scratch: it reads text, looks at pictures and listens to speech, and answers in text and
in speech. Pictures and sounds become positions of a small language model, the Thinker; the Talker says what it writes,
as codes of a speech codec that a vocoder turns into sound.
"""

LIMITS = (
    "It knows the things and tasks that it was trained on (names of pictured things, where they are in made-up scenes, "
    "a few facts, dictation, reading aloud), in English, and little else. It makes mistakes there, too. No answer of "
    "it should be relied on, and nothing keeps it from nonsense about what it was not trained on. Its voices are "
    "synthetic."
)

TRANSFORMERS = """\
## With transformers

The code comes with the folder, so transformers asks for `trust_remote_code`. It needs torch, numpy, pydantic,
sentencepiece and, for pictures, Pillow; not the package muomni.

```python
import numpy as np
from transformers import AutoModelForCausalLM, AutoProcessor

folder = "."  # this one
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)

messages = [{{"role": "user", "content": "Is a dog an animal?"}}]
inputs = processor.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
)
answer = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
print(processor.decode(answer, skip_special_tokens=True))

# A picture and a recording: {size} x {size} pixels are seen, and mono samples at {rate:,} Hz are heard.
picture = np.full((64, 64, 3), 255, np.uint8)
recording = np.zeros({rate}, np.float32)
content = [{{"type": "image"}}, {{"type": "audio"}}, {{"type": "text", "text": "What do you see?"}}]
prompt = processor.apply_chat_template([{{"role": "user", "content": content}}], add_generation_prompt=True)
inputs = processor(text=prompt, images=[picture], audio=[recording], return_tensors="pt")
spoken = model.generate_speech(processor.tokenizer, **inputs, max_new_tokens=16)
print(spoken.waveform.shape, spoken.sampling_rate)  # float32 [samples]

# Speech to text is a question with a recording and these words: {dictation!r}
# Text to speech:
print(model.say(processor.tokenizer, "There are two dogs.").waveform.shape)
```

Voices: {voices} (`voice=` of `generate_speech` and `say`; the first is the default).
"""

ONNX = """\
## With onnxruntime

`onnx/` holds every part as its own ONNX file. `onnx/run_onnx.py` shows how they work together; it needs onnxruntime,
numpy, sentencepiece and, for pictures, Pillow:

```
python onnx/run_onnx.py --text "Is a dog an animal?"
python onnx/run_onnx.py --image picture.png --audio-in question.wav --audio-out answer.wav
```
"""


def model_card(model: Omni, card: Mapping[str, Any], measured: Measured, formats: Sequence[str]) -> str:
    """The text of README.md; its parts are those of the model's own card (`muomni.passport`).

    Args:
        model: the model.
        card: of its checkpoint.
        measured: its evaluation.
        formats: that the folder has.
    """
    cfg = model.cfg
    library = "transformers" if "hf" in formats else "onnx"
    counted = {"parts": parts(model)} | dict(card)  # cards did not always have them
    known = [] if measured.reason else limits(card, measured)
    shown = [
        *([validation(card)] if measured.reason else sections.reaches(measured, card)[:1]),
        Part("Limits", [Text(LIMITS), *([Points(known)] if known else [])]),
        sections.data(card),
        size(model, counted),
        sections.corpora(card),
    ]
    texts = [HEAD.format(library=library), *(part.markdown() for part in shown)]
    if "hf" in formats:
        texts.append(
            TRANSFORMERS.format(
                size=cfg.vision_encoder.image_size,
                rate=cfg.mel.sample_rate,
                voices=", ".join(f"`{voice}`" for voice in cfg.talker.voices),
                dictation=DICTATION,
            )
        )
    if "onnx" in formats:
        texts.append(ONNX)
    return "\n".join(texts)


def size(model: Omni, card: Mapping[str, Any]) -> Part:
    """Parameters of each component, and what the context holds."""
    positions = model.cfg.thinker.context
    context = f"Context {positions} positions; a picture takes {model.image_positions}, a second of speech 12.5."
    counted = sections.parameters(card)
    return Part(counted.title, [Text(context), *counted.blocks])


def validation(card: Mapping[str, Any]) -> Part:
    """What was measured at the end of its training, where no evaluation of it is at hand."""
    told = sections.validation(card)
    answers = card["params"].get("e_omni", {}).get("valid_answers")
    few = f" Accuracies and CER are of {answers} answers each, a rough measure." if answers else ""
    first = f"On the validation data, which nothing was learned from, at the end of the training.{few}"
    return Part("Figures", [Text(first), told] if told.rows else [Text("The checkpoint's card has none.")])
