"""A PostgreSQL server for tests, from the programs of the distribution, in a folder of its own; skips where none is."""

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

USER = "muomni"
PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin")  # Debian does not put all of them on PATH


def programs() -> Path:
    """The folder of ``initdb`` and ``postgres``; skips the test if there is none."""
    found = [Path(path).resolve().parent for path in [shutil.which("initdb")] if path]
    found += [path for pattern in PLACES for path in sorted(Path("/").glob(pattern.lstrip("/")), reverse=True)]
    for folder in found:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    pytest.skip("no PostgreSQL here (Debian: apt install postgresql)")


class Postgres:
    """A server on loopback with one user and a password; it can be killed and started again.

    PostgreSQL does not run as root: then it runs as another user.
    """

    def __init__(self, folder: Path) -> None:
        self.bin, self.data, self.password = programs(), folder / "data", secrets.token_urlsafe(12)
        self.user = "nobody" if getpass.getuser() == "root" else None
        self.process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        word = folder / "password"
        word.write_text(self.password)
        if self.user:
            for path in (folder, word):
                shutil.chown(path, self.user)
        made = [str(self.bin / "initdb"), "--pgdata", str(self.data), "--username", USER, "--auth", "scram-sha-256"]
        made += ["--pwfile", str(word), "--no-sync", "--encoding", "UTF8", "--locale", "C"]
        subprocess.run(made, user=self.user, cwd=folder, check=True, capture_output=True)

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        command = [str(self.bin / "postgres"), "-D", str(self.data), "-p", str(self.port), "-h", "127.0.0.1"]
        command += ["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=100"]
        with (self.data.parent / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, user=self.user, cwd=self.data, stdout=log, stderr=log, start_new_session=True
            )
        self.ask("SELECT 1", wait=60)

    def ask(self, what: str, database: str = "postgres", wait: float = 10) -> list[tuple[object, ...]]:
        """The rows that a statement gives; asked again for some seconds if nobody answers."""
        import psycopg

        end = time.monotonic() + wait
        while True:
            try:
                with psycopg.connect(self.url("postgresql", database), autocommit=True) as connection:
                    found = connection.execute(what.encode())
                    return found.fetchall() if found.description else []
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def url(self, scheme: str, database: str) -> str:
        """The address of a database, with user and password."""
        return f"{scheme}://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def make(self, database: str) -> None:
        """Make an empty database."""
        self.ask(f"CREATE DATABASE {database}")

    def kill(self) -> None:
        """End it at once, with every connection, as a crash does."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGQUIT)
            self.process.wait()
        self.process = None


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A running server in a folder that its user may enter, which a test's own folder is not."""
    with tempfile.TemporaryDirectory(prefix="muomni-postgres-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        server = Postgres(Path(name))
        try:
            server.start()
            yield server
        finally:
            server.kill()
