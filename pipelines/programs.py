"""A program of the workplace: started with a log of its own, ended with all that it started."""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from muomni.errors import UserError
from pipelines.place import root

STOP = 20.0  # seconds that a program gets to end


def silence(pages: Path) -> None:
    """Have Prefect's pages report to nobody.

    Those of version 2 ask an analytics service for its settings even where analytics are off. The server lays out
    copies of its pages in a folder of ours, in which that address becomes one that refuses at once.
    """
    for path in pages.rglob("*.js"):
        text = path.read_text(encoding="utf-8")
        silent = re.sub(r"https://[\w.-]*amplitude\.com", "http://127.0.0.1:9", text)
        if silent != text:
            path.write_text(silent, encoding="utf-8")


def free(host: str, port: int, what: str, option: str) -> None:
    """Make sure that a port can be taken.

    Raises:
        UserError: if it cannot.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"{host}:{port}: no place for {what} ({error.strerror}); choose with {option}") from None


@dataclass
class Program:
    """A program of the workplace.

    Attributes:
        name: also of its log file.
        command: what to run; nothing secret, for everybody on the machine can read it.
        own: what only its environment has.
        process: while it runs.
    """

    name: str
    command: list[str]
    own: dict[str, str] = field(default_factory=dict, repr=False)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What it prints."""
        return root() / f"{self.name}.log"

    def start(self, env: dict[str, str]) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches it in its turn."""
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "pipelines.attached", str(os.getpid()), *self.command]
            self.process = subprocess.Popen(
                command, env=env | self.own, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def ended(self) -> bool:
        """Whether it was started and is gone."""
        return self.process is not None and self.process.poll() is not None

    def stop(self) -> None:
        """End it and what it started."""
        if self.process is None:
            return
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP)
                break

    def last_words(self) -> str:
        """The end of its log, for a message."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n") if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
