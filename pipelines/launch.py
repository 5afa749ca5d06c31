"""Train a stage in several processes, on one machine or several: ``python -m pipelines.launch --nproc 2 a-thinker``.

It is ``torchrun`` with the settings that fit here, and with one line where something fails. A process takes
``accumulate`` micro-batches a step, so that two processes with 2 do what one does with 4 (docs/cluster.md).
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from muomni.errors import UserError, ending_in_one_line
from pipelines.check_graph import entry_module


def trainings(graph: Path = Path("dvc.yaml")) -> dict[str, str]:
    """Module of each stage that trains, by the stage's name.

    Raises:
        UserError: if there is no graph here.
    """
    try:
        stages = yaml.safe_load(graph.read_text(encoding="utf-8"))["stages"]
    except OSError as error:
        raise UserError(f"{graph}: {error.strerror}; run this in the project's folder") from None
    return {name: entry_module(spec["cmd"]) for name, spec in stages.items() if name[1:2] == "-"}


def words(args: argparse.Namespace, module: str) -> list[str]:
    """The arguments of ``torchrun``."""
    given = ["--nproc-per-node", str(args.nproc), "--nnodes", str(args.nodes), "--max-restarts", str(args.max_restarts)]
    if args.nodes == 1:
        given.append("--standalone")
    else:
        given += ["--rdzv-backend", "c10d", "--rdzv-endpoint", args.at, "--rdzv-id", args.id]
    if args.local_addr:
        given += ["--local-addr", args.local_addr]
    return [*given, "--module", module]


def launch(given: Sequence[str]) -> int:
    """Run ``torchrun``. Returns the exit code: 2 where a process has told an error that a user can mend.

    Raises:
        UserError: if the nodes do not find each other.
    """
    # Else PyTorch 2.11 keeps the store of killed processes, and those that are started after them wait for ever.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        run.run(run.parse_args(list(given)))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        if code != 2:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            print(f"error: process {rank} {how}; the same command goes on from the saved state", file=sys.stderr)
        return code if code > 0 else 1
    except (SignalException, KeyboardInterrupt):
        print("error: interrupted; the same command goes on from the saved state", file=sys.stderr)
        return 130
    except Exception as error:  # the rendezvous: an address that is not there, or another run's
        said = " ".join(str(error).split())[:200]
        raise UserError(f"the nodes did not find each other ({type(error).__name__}: {said}); check --at") from None
    return 0


def main() -> None:
    """Read the command line and train.

    Raises:
        UserError: if a number or the stage is not one.
    """
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.launch", description="train a stage in several processes"
    )
    parser.add_argument("stage", help="such as a-thinker")
    parser.add_argument("--nproc", type=int, default=1, help="processes on each machine; one a GPU")
    parser.add_argument("--nodes", type=int, default=1, help="machines; run the same command on each")
    parser.add_argument("--at", default="127.0.0.1:29400", help="host:port of the first machine, for several")
    parser.add_argument("--id", default="muomni", help="a name that this run's machines share")
    parser.add_argument("--local-addr", default="", help="this machine's address, where its name does not resolve")
    parser.add_argument("--max-restarts", type=int, default=0, help="times to start again after a process was killed")
    args = parser.parse_args()
    with ending_in_one_line():
        if min(args.nproc, args.nodes) < 1 or args.max_restarts < 0:
            raise UserError("--nproc and --nodes are 1 or more, --max-restarts 0 or more")
        known = trainings()
        if args.stage not in known:
            raise UserError(f"{args.stage}: no training; one of {', '.join(known)}")
        threads = max(1, (os.cpu_count() or 1) // args.nproc)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        code = launch(words(args, known[args.stage]))
    sys.exit(code)


if __name__ == "__main__":
    main()
