"""A question to muOmni, answered by onnxruntime and numpy: no PyTorch, no muomni.

    python run_onnx.py --text "Is a dog an animal?"
    python run_onnx.py --image picture.png --audio-in question.wav --audio-out answer.wav

Read `Runtime` from top to bottom: each method runs one or two of the ONNX files beside this script. Recordings are WAV
of 16 bits at the model's rate; pictures are whatever Pillow reads.
"""

import argparse
import json
import math
import sys
import wave
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

from muomni.errors import UserError
from muomni.fusion import lay_out
from muomni.recording import as_learned
from muomni.speech import FRAMES_A_CHARACTER, LONGEST, sentences, speakable, spell_part
from muomni.tokenizer import Tokenizer, render_chat
from muomni.walk import LONGEST_STAY

Array = Any  # numpy's arrays, whose types are in the docstrings


class Runtime:
    """A folder of ONNX files as one model.

    Args:
        folder: with the files.
        threads: of each operation; 0 for all cores.
    """

    def __init__(self, folder: str | Path, threads: int = 0) -> None:
        self.folder = Path(folder)
        self.cfg = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        self.tokenizer = Tokenizer(self.folder)
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.sessions: dict[str, onnxruntime.InferenceSession] = {}

    def run(self, name: str, **inputs: Array) -> list[Array]:
        """Run a file, loaded on first use."""
        if name not in self.sessions:
            path = self.folder / f"{name}.onnx"
            self.sessions[name] = onnxruntime.InferenceSession(path, self.options, ["CPUExecutionProvider"])
        return list(self.sessions[name].run(None, inputs))

    def empty_cache(self, name: str) -> dict[str, Array]:
        """No keys and values yet, ``[L, 1, K, 0, h]`` float32, for the section of this name."""
        cfg = self.cfg[name]
        shape = (cfg["n_layers"], 1, cfg["n_kv_heads"], 0, cfg["d_model"] // cfg["n_heads"])
        return {"past_keys": np.zeros(shape, np.float32), "past_values": np.zeros(shape, np.float32)}

    # --- what comes in ---

    def see(self, path: str) -> Array:
        """A picture's embeddings ``[P, D]``: it is fitted into a white square."""
        from PIL import Image

        from muomni.media import PADDING, load_image

        picture, size = load_image(path), self.cfg["vision_encoder"]["image_size"]
        scale = size / max(picture.size)
        fitted = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        if fitted != picture.size:
            picture = picture.resize(fitted, Image.Resampling.BICUBIC)
        square = Image.new("RGB", (size, size), PADDING)
        square.paste(picture, ((size - fitted[0]) // 2, (size - fitted[1]) // 2))
        pixels = np.asarray(square, np.float32).transpose(2, 0, 1)[None] / 255
        return self.run("vision_encoder", pixels=pixels)[0][0]

    def hear(self, samples: Array) -> Array:
        """A recording's embeddings ``[N, D]``, 12.5 a second; samples ``[T]`` float32 in [-1, 1]."""
        heard = as_learned(samples.astype(np.float32), self.rate)
        (mel,) = self.run("log_mel", wave=heard[None])
        mel = mel[:, : 8 * self.cfg["audio_encoder"]["positions"]]
        states, _ = self.run("audio_encoder", mel=mel, lengths=np.array([mel.shape[1]]))
        return states[0]

    # --- the Thinker ---

    def prompt(self, text: str, pictures: Sequence[Array] = (), recordings: Sequence[Array] = ()) -> Array:
        """A question as embeddings ``[1, T, D]``: the chat template, with what is seen and heard in its places."""
        seen = [{"type": "image", "image": number} for number in range(len(pictures))]
        heard = [{"type": "audio", "audio": number} for number in range(len(recordings))]
        content = [*seen, *heard, *([{"type": "text", "text": text}] if text else [])]
        segments = render_chat([{"role": "user", "content": content}], self.tokenizer, add_generation_prompt=True)
        ids = np.array([lay_out(segments, self.tokenizer, [len(x) for x in (*pictures, *recordings)]).ids])
        (x,) = self.run("embedding", ids=ids)
        for token, embeddings in ((self.tokenizer.image, pictures), (self.tokenizer.audio, recordings)):
            if embeddings:
                x[ids == token] = np.concatenate(embeddings)
        return x

    def write(self, prompt: Array, limit: int) -> Iterator[tuple[int, Array]]:
        """The likeliest answer, each token with the Thinker's state ``[D]`` after it; the last one ends the answer."""
        stop = {self.tokenizer.end, self.tokenizer.eos}
        banned = sorted(self.tokenizer.controls - stop)
        cache, size = self.empty_cache("thinker"), prompt.shape[1]

        def read(x: Array, count: int) -> tuple[Array, Array]:
            """The state ``[D]`` and logits ``[V]`` after embeddings ``[1, T, D]``, ``count`` places with them."""
            states, logits, cache["past_keys"], cache["past_values"] = self.run(
                "thinker",
                embeddings=x,
                mask=np.ones((1, count), np.int64),
                last=np.array([x.shape[1] - 1]),
                **cache,
            )
            return states[0, -1], logits[0]

        _, logits = read(prompt, size)
        for number in range(1, 1 + min(limit, self.cfg["thinker"]["context"] - size)):
            logits[banned] = -np.inf
            token = int(logits.argmax())
            (x,) = self.run("embedding", ids=np.array([[token]]))
            state, logits = read(x, size + number)
            yield token, state
            if token in stop:
                return

    # --- the Talker ---

    def speak(self, ids: Sequence[int], states: Array, voice: int, temperature: float, seed: int) -> Iterator[Array]:
        """Codes ``[T, Q]`` int64 of each sentence of an answer's tokens, with the Thinker's states ``[n, D]``."""
        text, spans = self.tokenizer.decode(ids), self.tokenizer.char_spans(ids)
        longest = max(16, min(LONGEST, self.cfg["talker"]["frames"] // FRAMES_A_CHARACTER))
        draw = np.random.default_rng(seed)
        for start, end in sentences(text, longest):
            if speakable(text[start:end]):
                characters, tokens = spell_part(text, spans, start, end)
                (known,) = self.run(
                    "characters",
                    characters=np.array([characters]),
                    states=states[None, tokens],
                    voice=np.array([voice]),
                )
                yield np.array(list(self.frames(known, voice, temperature, draw)))

    def frames(self, characters: Array, voice: int, temperature: float, draw: np.random.Generator) -> Iterator[Array]:
        """Codes ``[Q]`` frame by frame, from character to character: on, once it is likelier than not to go on."""
        cfg, count = self.cfg["talker"], characters.shape[1]
        first, last = cfg["voice_codes"][voice] if cfg.get("voice_codes") else (0, cfg["codes"])
        number = np.arange(cfg["codes"])
        others = (number < first) | (number >= last)  # codes that only other voices speak with
        codes = np.full((1, cfg["codebooks"]), cfg["codes"])
        cache = self.empty_cache("talker")
        at, stay, still = 0, 0, 1.0
        for _ in range(min(cfg["frames"], LONGEST_STAY * count)):
            noise = temperature * draw.gumbel(size=(1, cfg["codebooks"], cfg["codes"]))
            noise[..., others] = -1e9
            codes, advance, _, cache["past_keys"], cache["past_values"] = self.run(
                "talker",
                previous=codes,
                character_states=characters,
                position=np.array([at]),
                stay=np.array([stay]),
                noise=noise.astype(np.float32),
                **cache,
            )
            yield codes[0]
            still *= 1 - float(advance[0])
            if still < 0.5 or stay + 1 >= LONGEST_STAY:
                at, stay, still = at + 1, 0, 1.0
            else:
                stay += 1
            if at == count:
                return

    def sound(self, codes: Array) -> Array:
        """Codes ``[T, Q]`` to samples float32 in [-1, 1]."""
        (mel,) = self.run("codec_decoder", codes=codes[None])
        return self.run("vocoder", mel=mel[0], **self.phases(mel.shape[1]))[0]

    def phases(self, frames: int) -> dict[str, Array]:
        """What Griffin-Lim begins with, drawn as PyTorch draws it; nothing for the trained vocoder."""
        if self.cfg["vocoder"]["kind"] != "griffin_lim":
            return {}
        shape = (self.cfg["mel"]["n_fft"] // 2 + 1, frames + 1)
        raw = np.frombuffer(np.random.RandomState(self.cfg["griffin_lim"]["seed"]).bytes(4 * math.prod(shape)), "<u4")
        return {"phase": ((raw & 0xFFFFFF) * np.float32(2**-24)).astype(np.float32).reshape(shape)}

    @cached_property
    def rate(self) -> int:
        """Samples a second."""
        return int(self.cfg["mel"]["sample_rate"])


def read_wav(path: str, rate: int) -> Array:
    """Samples float32 of a WAV of 16 bits, the mean of its channels.

    Raises:
        UserError: if it is something else.
    """
    try:
        with wave.open(path, "rb") as file:
            if file.getsampwidth() != 2 or file.getframerate() != rate:
                raise UserError(f"{path}: expected WAV of 16 bits at {rate} Hz; convert it")
            data = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
    except (wave.Error, EOFError, OSError) as error:
        raise UserError(f"{path}: cannot be read as WAV ({error})") from None
    if not len(data):
        raise UserError(f"{path}: has no samples; give a recording that is not empty")
    return data.astype(np.float32).mean(1) / 32768


def write_wav(path: str, samples: Array, rate: int) -> None:
    """Write samples in [-1, 1] as a WAV of 16 bits."""
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def main() -> None:
    """Answer one question."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", default="", help="the question")
    parser.add_argument("--image", action="append", default=[], metavar="FILE", help="a picture; may be repeated")
    parser.add_argument("--audio-in", action="append", default=[], metavar="FILE.wav", help="a recording; likewise")
    parser.add_argument("--audio-out", metavar="FILE.wav", help="also say the answer, into this file")
    parser.add_argument("--voice", type=int, default=0, help="number of the voice (default: 0)")
    parser.add_argument("--temperature", type=float, help="of the speech (default: the model's; 0 for the likeliest)")
    parser.add_argument("--seed", type=int, default=0, help="of the speech (default: 0)")
    parser.add_argument("--max-tokens", type=int, default=128, help="length of the answer (default: 128)")
    parser.add_argument("--folder", default=str(Path(__file__).parent), help="with the ONNX files (default: this one)")
    args = parser.parse_args()
    try:
        answer(args)
    except UserError as error:
        sys.exit(f"error: {error}")


def answer(args: argparse.Namespace) -> None:
    """Print the answer, and write its speech if a file is given for it."""
    runtime = Runtime(args.folder)
    talker = runtime.cfg["talker"]
    voices = talker["voices"]
    if not 0 <= args.voice < len(voices):
        raise UserError(f"--voice {args.voice}: there are {len(voices)}, counted from 0: {', '.join(voices)}")
    recordings = [runtime.hear(read_wav(path, runtime.rate)) for path in args.audio_in]
    prompt = runtime.prompt(args.text, [runtime.see(path) for path in args.image], recordings)
    if prompt.shape[1] >= runtime.cfg["thinker"]["context"]:
        raise UserError(f"the question takes {prompt.shape[1]} positions; give less")
    found = list(runtime.write(prompt, args.max_tokens))
    if found and found[-1][0] in (runtime.tokenizer.end, runtime.tokenizer.eos):
        found.pop()
    ids = [token for token, _ in found]
    print(runtime.tokenizer.decode(ids))
    if args.audio_out:
        temperature = talker["temperature"] if args.temperature is None else args.temperature
        states = np.array([state for _, state in found])
        pieces = [runtime.sound(codes) for codes in runtime.speak(ids, states, args.voice, temperature, args.seed)]
        if not pieces:
            raise UserError("nothing in the answer can be said")
        write_wav(args.audio_out, np.concatenate(pieces), runtime.rate)


if __name__ == "__main__":
    main()
