"""Functions that the tests of executors map over items; workers import them by name."""

import os
import signal
import time
from pathlib import Path

from muomni.errors import UserError


def squared(number: int, more: int = 0) -> int:
    return number * number + more


def slow(number: int, folder: str) -> int:
    """Leaves a note of who worked."""
    (Path(folder) / f"{number}-{os.getpid()}").touch()
    time.sleep(0.05)
    return number * number


def deadly(numbers: list[int], bad: int) -> list[int]:
    """Kills its process at one number, as the system does when memory runs out."""
    if bad in numbers:
        os.kill(os.getpid(), signal.SIGKILL)
    return [number * number for number in numbers]


def refused(number: int) -> int:
    raise UserError(f"number {number} is not wanted")


def for_ever(number: int) -> int:
    time.sleep(600)
    return number
