"""How large each ONNX file is, and how fast onnxruntime runs it beside what this package does with PyTorch.

``python benchmarks/export.py (--checkpoint checkpoints/omni | --profile base) [--json FILE]`` exports every part, times
both in turn, and prints a table, with how far apart what they give is. With a profile the weights are random.
"""

import argparse
import json
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from muomni.bench.clock import interleave, ratio
from muomni.bench.machine import describe
from muomni.decoder import Decoder
from muomni.device import DeviceConfig, pick_device
from muomni.errors import UserError, ending_in_one_line
from muomni.export.onnx_files import files, write_file
from muomni.export.onnx_parts import ThinkerPart
from muomni.griffin_lim import GriffinLim
from muomni.mel import LogMel
from muomni.omni import Omni, load_omni
from muomni.parameter_table import read_shapes
from muomni.settings_commands import profile_file

TEXT, SECONDS, ANSWERED, SPOKEN = 64, 3.0, 64, 100  # tokens read, of sound, tokens and frames before a step
CPU = DeviceConfig(name="cpu", precision="fp32", threads=0, memory_gb=None)


class Case(NamedTuple):
    """One thing that both do.

    Attributes:
        name: of the row.
        file: of the ONNX file.
        torch: what this package does; gives tensors to compare, in the order of the file's outputs.
        inputs: of the file.
    """

    name: str
    file: str
    torch: Callable[[], Any]
    inputs: dict[str, Tensor]


def ids(count: int, below: int) -> Tensor:
    """Random whole numbers ``[1, count]``."""
    return torch.randint(below, (1, count))


def cases(model: Omni) -> Iterator[Case]:
    """What is timed, at lengths of a usual question and answer."""
    cfg, thinker, talker = model.cfg, model.thinker, model.talker
    tokens = ids(TEXT, cfg.thinker.vocab_size)
    yield Case(f"embedding, {TEXT} tokens", "embedding", lambda: thinker.embed(tokens), {"ids": tokens})
    size = cfg.vision_encoder.image_size
    pixels = torch.rand(1, 3, size, size)

    def see() -> Tensor:
        return model.project_images(model.image_features(pixels).flatten(0, 1))[None]

    yield Case(f"vision encoder, {size} x {size} pixels", "vision_encoder", see, {"pixels": pixels})
    samples = int(SECONDS * cfg.mel.sample_rate)
    wave, front_end = torch.rand(1, samples) - 0.5, LogMel(cfg.mel)
    yield Case(f"log-mel, {SECONDS:g} s", "log_mel", lambda: front_end(wave), {"wave": wave})
    mel = front_end(wave)
    lengths = torch.tensor([mel.shape[1]])

    def hear() -> Tensor:
        return model.audio_projector(model.audio_encoder(mel, lengths)[0])

    yield Case(f"audio encoder, {SECONDS:g} s", "audio_encoder", hear, {"mel": mel, "lengths": lengths})
    yield from thinker_cases(model, tokens)
    spelled, states = ids(40, 27), torch.randn(1, 40, cfg.thinker.d_model)
    voice = torch.tensor([0])
    given = {"characters": spelled, "states": states, "voice": voice}
    yield Case("characters, 40", "characters", lambda: talker.condition(spelled, states, voice), given)
    yield talker_case(model, talker.condition(spelled, states, voice))
    codes = ids(int(SECONDS * 50) * cfg.codec.codebooks, cfg.codec.codes).view(1, -1, cfg.codec.codebooks)
    yield Case(f"codec, {SECONDS:g} s", "codec_decoder", lambda: model.codec.decode(codes), {"codes": codes})
    frames = model.codec.decode(codes)[0]
    sound = {"mel": frames}
    if isinstance(model.vocoder, GriffinLim):
        rng = torch.Generator().manual_seed(cfg.griffin_lim.seed)
        sound["phase"] = torch.rand(cfg.mel.n_fft // 2 + 1, len(frames) + 1, generator=rng)
    yield Case(f"vocoder ({cfg.vocoder.kind}), {SECONDS:g} s", "vocoder", lambda: model.vocoder(frames), sound)


def thinker_cases(model: Omni, tokens: Tensor) -> Iterator[Case]:
    """Reading a question, and one token more; PyTorch's side is `muomni.decoder`, which answers questions here."""
    decoder, x = Decoder(model.thinker), model.thinker.embed(tokens)
    cfg = model.cfg.thinker
    shape = (cfg.n_layers, 1, cfg.n_kv_heads, 0, cfg.d_model // cfg.n_heads)
    none = {"past_keys": torch.zeros(shape), "past_values": torch.zeros(shape)}
    mask = torch.ones(1, TEXT, dtype=torch.int64)

    def read() -> tuple[Tensor, Tensor]:
        states = decoder(x)
        return states, decoder.logits(states[:, -1])

    given = {"embeddings": x, "mask": mask, "last": torch.tensor([TEXT - 1]), **none}
    yield Case(f"Thinker reads {TEXT} tokens", "thinker", read, given)
    cache = decoder.new_cache(1, ANSWERED + 1)
    decoder.read(x[:, :ANSWERED], cache)
    token = int(tokens[0, 0])

    def step() -> tuple[Tensor, Tensor]:
        cache.lengths = [ANSWERED]
        state = decoder.step([token], cache)
        return state[None], decoder.logits(state)

    keys, values = ThinkerPart(model)(*given.values())[2:]
    one = {"embeddings": x[:, :1], "mask": torch.ones(1, ANSWERED + 1, dtype=torch.int64), "last": torch.tensor([0])}
    yield Case("Thinker, one token more", "thinker", step, {**one, "past_keys": keys, "past_values": values})


def talker_case(model: Omni, known: Tensor) -> Case:
    """One frame, as `muomni.talker.Walk` makes it with the likeliest codes."""
    talker, cfg = model.talker, model.cfg.talker
    cache = talker.stack.new_cache(1, SPOKEN + 1)
    cache.keys.normal_()
    cache.values.normal_()
    previous, at = ids(cfg.codebooks, cfg.codes), torch.tensor([[3]])

    def frame() -> tuple[Tensor, Tensor]:
        cache.length = SPOKEN
        state = talker(previous[None], known, at, at, cache)[0, -1]
        advance, codes = talker.advance(state).sigmoid(), []
        for q, head in enumerate(talker.code_heads):
            codes.append(head(state).argmax(-1))
            state = state + talker.code_embedding[q](codes[-1])
        return torch.stack(codes)[None], advance

    inputs = {
        "previous": previous,
        "character_states": known,
        "position": at[0],
        "stay": at[0],
        "noise": torch.zeros(1, cfg.codebooks, cfg.codes),
        "past_keys": cache.keys[:, :, :, :SPOKEN].clone(),
        "past_values": cache.values[:, :, :, :SPOKEN].clone(),
    }
    return Case(f"Talker, one frame behind {SPOKEN}", "talker", frame, inputs)


def measure(model: Omni, folder: Path, threads: list[int], seconds: float) -> list[dict[str, Any]]:
    """Export, compare and time every case; a row of figures for each and each number of threads."""
    for file in files(model):
        write_file(folder / f"{file.name}.onnx", file)
    rows = []
    for case in cases(model):
        path = folder / f"{case.file}.onnx"
        given = {name: tensor.numpy() for name, tensor in case.inputs.items()}
        for count in threads:
            torch.set_num_threads(count)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = count
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # or it disturbs PyTorch's turn
            session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
            both = {"torch": case.torch, "onnx": lambda session=session, given=given: session.run(None, given)}
            times = interleave(both, seconds, most=2000)
            wanted = case.torch()
            wanted = wanted if isinstance(wanted, tuple) else (wanted,)
            pairs = zip(wanted, session.run(None, given), strict=False)
            rows.append(
                {
                    "case": case.name,
                    "file": path.name,
                    "mb": path.stat().st_size / 1e6,
                    "threads": count,
                    "torch_ms": 1e3 * statistics.median(times["torch"]),
                    "onnx_ms": 1e3 * statistics.median(times["onnx"]),
                    "ratio": ratio(times["torch"], times["onnx"]),
                    "rounds": len(times["onnx"]),
                    "difference": max(float(np.abs(a.numpy() - b).max()) for a, b in pairs),
                }
            )
    return rows


def table(rows: list[dict[str, Any]], threads: list[int]) -> str:
    """The rows in Markdown."""
    head = ["Part", "MB", *(f"torch, ms, {n} thr. | onnx, ms | torch/onnx" for n in threads), "largest difference"]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (2 + 3 * len(threads))]
    for name in dict.fromkeys(row["case"] for row in rows):
        some = [row for row in rows if row["case"] == name]
        times = [f"{row['torch_ms']:.2f} | {row['onnx_ms']:.2f} | {row['ratio']:.2f}" for row in some]
        worst = f"{max(row['difference'] for row in some):.0e}"
        lines.append(f"| {name} | {some[0]['mb']:.2f} | {' | '.join(times)} | {worst} |")
    return "\n".join(lines)


def make_model(options: argparse.Namespace) -> Omni:
    """The model that the options name."""
    if options.checkpoint:
        return load_omni(options.checkpoint)[0]
    torch.manual_seed(0)
    return Omni(read_shapes(profile_file(options.profile))[0]).eval()


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--checkpoint", help="of a trained model")
    which.add_argument("--profile", help="of profiles/; random weights")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    parser.add_argument("--json", help="also write all figures there")
    options = parser.parse_args()
    with ending_in_one_line(), tempfile.TemporaryDirectory() as folder:
        if min(options.threads) < 1:
            raise UserError("--threads: give numbers from 1")
        rows = measure(make_model(options), Path(folder), options.threads, options.seconds)
        print(table(rows, options.threads))
        about = {**describe(pick_device(CPU)), "onnxruntime": onnxruntime.__version__, "system": platform.platform()}
        print(f"\n{about['cpu']}, torch {about['torch']}, onnxruntime {about['onnxruntime']}")
        if options.json:
            found = {"model": options.checkpoint or options.profile, "machine": about, "rows": rows}
            Path(options.json).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
