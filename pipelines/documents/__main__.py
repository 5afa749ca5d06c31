"""Compare README, docs/ and docstrings with what they tell of: ``python -m pipelines.documents [--write]``.

In `make check`.
"""

import argparse
import sys
from pathlib import Path

from muomni.errors import UserError
from pipelines.documents import blocks, docstrings, figures, filling, numbers, reading
from pipelines.run import state_root


def main() -> None:
    """Print what differs; exit code 1 if anything does, 2 if a page asks for what is not there."""
    parser = argparse.ArgumentParser(description="Compare README and docs/ with the code, figures and profiles.")
    parser.add_argument("--write", action="store_true", help="put quoted code, figures, sizes and the graph right")
    parser.add_argument(
        "--take", metavar="NAME", help="keep the figures of the run in metrics/ as docs/figures/NAME.json"
    )
    parser.add_argument("--machine", metavar="WORDS", help="with --take: what it ran on")
    options = parser.parse_args()
    root = Path.cwd()
    try:
        if options.take:
            if not options.machine:
                raise UserError("--take needs --machine, for example --machine 'two cores of an AMD EPYC'")
            print(figures.take(root, options.take, options.machine, state_root()))
        if options.write:
            print("\n".join(str(path.relative_to(root)) for path in filling.write(root)) or "nothing to change")
        problems = filling.differing(root) + numbers.listed(root) + blocks.unclear(root)
        problems += reading.too_long(root) + docstrings.all_lacking(root)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if problems:
        print("\n".join(problems), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
