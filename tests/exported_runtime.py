"""Runs in a process of its own where neither torch nor muomni can be imported: an exported folder in onnxruntime.

``python exported_runtime.py FOLDER INPUTS.json OUTPUTS.npz``.
"""

import json
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

import numpy as np


class NotInstalled(MetaPathFinder):
    """As if the packages were not there."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuse them."""
        if name.partition(".")[0] in ("muomni", "pipelines", "torch", "transformers", "onnx", "pydantic", "soundfile"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main() -> None:
    """See the module's text."""
    folder, given, out = sys.argv[1:]
    sys.meta_path.insert(0, NotInstalled())
    sys.path.insert(0, folder)
    from run_onnx import Runtime, read_wav

    inputs = json.loads(Path(given).read_text())
    runtime = Runtime(folder, threads=1)
    samples = read_wav(inputs["recording"], runtime.rate)
    prompt = runtime.prompt(inputs["question"], [runtime.see(inputs["picture"])], [runtime.hear(samples)])
    found = list(runtime.write(prompt, inputs["limit"]))
    stop = (runtime.tokenizer.end, runtime.tokenizer.eos)
    said = [(token, state) for token, state in found if token not in stop]
    ids, states = [token for token, _ in said], np.array([state for _, state in said])
    codes = list(runtime.speak(ids, states, inputs["voice"], 0.0, 0))
    drawn = np.concatenate(list(runtime.speak(ids, states, inputs["voice"], 0.5, 1)))
    again = np.concatenate(list(runtime.speak(ids, states, inputs["voice"], 0.5, 1)))
    np.savez(
        out,
        prompt=prompt[0],
        ids=np.array([token for token, _ in found]),
        states=states,
        codes=np.concatenate(codes),
        wave=np.concatenate([runtime.sound(part) for part in codes]),
        drawn=drawn,
        again=again,
        text=np.array(runtime.tokenizer.decode(ids)),
    )


if __name__ == "__main__":
    main()
