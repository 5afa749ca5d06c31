"""Run the blocks of one page, in a project that is there: ``python tests/document_runs.py ROOT PAGE``.

It works in the current folder, and best where there is no network (tests/test_document_blocks.py takes care of that).
Servers go on until the end of the page.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from pipelines.documents.blocks import runnable
from pipelines.documents.pages import Block

LIMIT = 600  # seconds that one block may take
SERVER = re.compile(
    r"(?:\w+=\S+ )*(?:\.venv/bin/)?(?:muomni serve|mlflow ui|mlflow models serve|dask (?:scheduler|worker))\b"
)
PORTS = {"muomni serve": 8000, "mlflow ui": 5000, "mlflow models": 5000, "dask scheduler": 8786}
READY = {"muomni serve": "/readyz", "mlflow ui": "/health", "mlflow models": "/ping"}
AWAITING = """
import ast, asyncio, inspect, sys
code = compile(open(sys.argv[1]).read(), sys.argv[2], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
made = eval(code, {"__name__": "__main__"})
if inspect.iscoroutine(made):
    asyncio.run(made)
"""


class Failed(Exception):
    """A block that does not do what the page says."""


def statements(text: str) -> list[str]:
    """Commands of a shell block: lines that bash takes as a whole."""
    found, kept = list[str](), ""
    for line in text.splitlines():
        kept += line + "\n"
        whole = subprocess.run(["bash", "-n"], input=kept, text=True, capture_output=True, check=False).returncode == 0
        if whole and not line.endswith("\\"):
            found += [kept] if kept.strip() else []
            kept = ""
    return [*found, kept] if kept.strip() else found


def ended(command: list[str]) -> tuple[int, str, str]:
    """Run a program with all that it starts to its end; exit code, output and errors.

    Raises:
        Failed: if it takes too long; all of it is ended.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise Failed(f"takes over {LIMIT} s: {command[-1]}") from None
    return process.returncode, out, err


def bash(script: str) -> str:
    """Run commands, and return what they print; variables that they export are there for the next ones.

    Raises:
        Failed: if one fails.
    """
    kept = Path(os.environ["TMPDIR"]) / "exported.sh"
    begin = f"set -eo pipefail\n[ ! -f {kept} ] || . {kept}\ntrap 'export -p > {kept}' EXIT\n"
    code, out, err = ended(["bash", "-c", begin + script])
    if code:
        raise Failed(f"{script}exit code {code}\n{out}{err}")
    return out


def serve(command: str, running: list["subprocess.Popen[str]"]) -> None:
    """Start a server and wait until it answers."""
    line = command.strip().split("  #")[0].strip().removesuffix("&").strip()
    words = [word for word in shlex.split(line) if "=" not in word or word.startswith("-")]
    kind = f"{Path(words[0]).name} {words[1]}"
    port = PORTS.get(kind, 0)
    for option in ("--port", "-p"):
        port = int(words[words.index(option) + 1]) if option in words else port
    log = Path(os.environ["TMPDIR"]) / f"server-{len(running)}.log"
    kept = Path(os.environ["TMPDIR"]) / "exported.sh"
    with log.open("w") as out:
        process = subprocess.Popen(
            ["bash", "-c", f"[ ! -f {kept} ] || . {kept}\nexec env {line}"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            text=True,
        )
    running.append(process)
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        try:
            if kind in READY:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{READY[kind]}", timeout=5).close()
            elif port and f":{port:04X} " not in Path("/proc/net/tcp").read_text():
                raise OSError
            return
        except OSError:
            time.sleep(0.2)
    raise Failed(f"{line}: does not answer\n{log.read_text()}")


def run_shell(block: Block, running: list["subprocess.Popen[str]"]) -> None:
    """Run the commands of a block; servers among them go on."""
    waiting = ""
    for statement in [*statements(block.text), ""]:
        server = SERVER.match(statement.strip())
        if not server and statement:
            waiting += statement
            continue
        if waiting:
            bash(waiting)
            waiting = ""
        if server:
            serve(statement, running)


def run_console(block: Block) -> None:
    """Run commands behind ``$`` and compare what they print; a line ``...`` stands for any lines."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, wanted = part.partition("\n")
        said = bash(command)
        pattern = re.escape(wanted.rstrip()).replace(re.escape("..."), ".*")
        if not re.fullmatch(pattern, said.rstrip(), re.DOTALL):
            raise Failed(f"{command}: prints\n{said}\nnot\n{wanted}")


def run_python(block: Block, before: str, where: str) -> None:
    """Run a Python block behind those before it on the page; await may stand at its top level."""
    script = Path(os.environ["TMPDIR"]) / "block.py"
    script.write_text(before + block.text)
    code, out, err = ended([sys.executable, "-c", AWAITING, str(script), where])
    if code:
        raise Failed(f"{out}{err}")


def run_page(root: Path, page: Path) -> None:
    """Run all blocks of a page in order.

    Raises:
        Failed: naming the page and the line of the block.
    """
    running: list[subprocess.Popen[str]] = []
    before = ""
    try:
        for block in runnable(page, root):
            where, begin = f"{page.relative_to(root)}:{block.line}", time.monotonic()
            try:
                if server := block.said("server"):
                    serve(server, running)
                if block.language == "sh":
                    run_shell(block, running)
                elif block.language == "console":
                    run_console(block)
                else:
                    run_python(block, before, where)
                    before += block.text + "\n"
            except Failed as error:
                raise Failed(f"{where}: {error}") from None
            print(f"{where}: {time.monotonic() - begin:.0f} s", flush=True)
    finally:
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in running:
            process.wait(60)


if __name__ == "__main__":
    try:
        run_page(Path(sys.argv[1]), Path(sys.argv[1]) / sys.argv[2])
    except Failed as failed:
        print(failed, file=sys.stderr)
        sys.exit(1)
