"""Run a command that Linux ends with the process that started it: ``python -m pipelines.attached PID COMMAND...``.

PID is the starter's. A flow that is killed leaves no dvc behind this way, and a dvc that ends takes its stages along
(`pipelines.run.end_with_dvc`).
"""

import os
import sys

from pipelines.run import end_with_parent


def main() -> None:
    """Ask for the signal, then become the command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        end_with_parent()
        if os.getppid() != int(parent):  # it died before the request was made
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
