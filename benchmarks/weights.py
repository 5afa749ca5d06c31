"""What it costs to write with the Thinker's weights in fewer bits.

``python benchmarks/weights.py [--checkpoint checkpoints/omni] [--tokens data/tokens]`` scores held-out text with each
kind of weights beside the Thinker's own modules, and prints JSON. How fast each is: ``muomni bench --only generation``.
"""

import argparse
import json
from pathlib import Path
from typing import get_args

from muomni.data.tokens import TokenDataset
from muomni.device import cpu_has_fast_bf16
from muomni.evaluate.language import weights_scores
from muomni.matrix import Weights
from muomni.omni import load_omni


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="checkpoints/omni")
    parser.add_argument("--tokens", default="data/tokens")
    parser.add_argument("--context", type=int, default=256, help="tokens of a window, as in training")
    parser.add_argument("--most", type=int, default=0, help="tokens that are scored; 0 for all")
    options = parser.parse_args()
    thinker = load_omni(Path(options.checkpoint))[0].thinker
    data = TokenDataset(options.tokens, "test")
    kinds = [kind for kind in get_args(Weights) if kind != "bf16" or cpu_has_fast_bf16()]
    found = weights_scores(thinker, data, kinds, options.context, options.context // 2, options.most, seed=0)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
