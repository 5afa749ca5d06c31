"""Peak memory of a Thinker step at the original's default batch, in MiB: ``python -m muomni.bench.text_memory PARAMS
[CHECKOUT]``, which takes another checkout's Thinker."""

import sys
from pathlib import Path

from muomni.bench.bench import ORIGINAL
from muomni.bench.clock import peak_mb
from muomni.bench.components import thinker_step
from muomni.bench.other import Other
from muomni.device import pick_device
from muomni.params import read_params


def main() -> None:
    """Run two steps and print the peak."""
    p = read_params(sys.argv[1])
    device = pick_device(p.device)
    batch, length, vocabulary = ORIGINAL

    def steps() -> None:
        if len(sys.argv) > 2:
            case = Other(Path(sys.argv[2])).thinker_step(p, vocabulary, device, batch, length)
        else:
            case = thinker_step(p, vocabulary, device, batch, length)
        case.run()
        case.run()

    print(peak_mb(steps))


if __name__ == "__main__":
    main()
