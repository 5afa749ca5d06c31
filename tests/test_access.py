"""A workplace that others reach asks for its token everywhere, and tells it nowhere; real servers, a real run."""

import asyncio
import base64
import os
import pty
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fake_project import make_project
from workplace import STEPS, Place, quietly, wait

from muomni.errors import UserError
from pipelines import access
from pipelines.access import Access
from pipelines.guard import Guard

ANOTHER = "another-token-of-somebody"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A workplace that listens everywhere."""
    folder = tmp_path_factory.mktemp("project")
    make_project(folder, STEPS)
    place = Place(folder, "--host", "0.0.0.0", "--name", "omni.example")
    yield place
    place.muomni("down")


def at_a_terminal(place: Place, *words: str) -> str:
    """What `muomni` says on a terminal."""
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "muomni.cli", *words]
    with subprocess.Popen(command, cwd=place.folder, env=place.env, stdin=writer, stdout=writer, stderr=writer) as done:
        os.close(writer)
        said = b""
        try:
            while found := os.read(reader, 10_000):
                said += found
        except OSError:  # Linux's way to say that nobody writes any more
            pass
    os.close(reader)
    assert done.returncode == 0, said
    return said.decode()


def told(place: Place) -> str:
    """The token."""
    return (place.folder / ".muomni/workplace/token").read_text().strip()


def holding(folder: Path, secret: str) -> list[str]:
    """The files of a folder in which some bytes are."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [str(path.relative_to(folder)) for path in files if secret.encode() in path.read_bytes()]


def test_the_token_is_drawn_and_told_once(guarded: Place) -> None:
    ports = ("--port", str(guarded.port), "--mlflow-port", str(guarded.mlflow_port))
    said = at_a_terminal(guarded, "up", "--detach", *ports, *guarded.options)
    token = told(guarded)
    guarded.http.auth = (access.USER, token)
    assert len(token) == 32 and said.count(token) == 1 and f"http://127.0.0.1:{guarded.port}" in said
    again = guarded.muomni("up", *ports, *guarded.options)
    assert again.returncode == 2 and "up already" in again.stderr and token not in again.stdout
    assert f"token: in {guarded.folder}/.muomni/workplace/token" in again.stdout


def test_both_servers_ask_for_it(guarded: Place) -> None:
    prefect, mlflow = f"http://127.0.0.1:{guarded.port}", f"http://127.0.0.1:{guarded.mlflow_port}"
    search = "2.0/mlflow/experiments/search?max_results=9"
    pages = [f"{prefect}/{path}" for path in ("", "api/admin/version", "ui-settings", "openapi.json")]
    pages += [f"{mlflow}/{path}" for path in ("", "version", f"api/{search}", f"ajax-api/{search}", "signup")]
    for page in pages:
        asked = httpx.get(page)
        assert asked.status_code == 401 and "www-authenticate" in asked.headers, page
        for wrong in (("muomni", ANOTHER), ("admin", told(guarded)), ("muomni", "")):
            assert httpx.get(page, auth=wrong).status_code == 401, page
        assert httpx.get(page, auth=("muomni", told(guarded))).status_code == 200, page
    assert httpx.post(f"{prefect}/api/flow_runs/filter", json={}).status_code == 401


def test_a_run_goes_on_after_the_worker_was_killed(guarded: Place) -> None:
    worker = guarded.named("prefect worker start")
    worker.send_signal(signal.SIGKILL)
    wait(lambda: not worker.is_running(), 20)
    first = guarded.start(name="first")
    assert guarded.ended(first) == "COMPLETED", guarded.logs(first)
    assert {("train", "FINISHED"), ("a-slow", "FINISHED")} <= set(guarded.mlflow())
    # A command at another terminal finds the token by itself.
    code = "import pipelines.quiet\nfrom prefect.client.orchestration import get_client\n"
    code += "with get_client(sync_client=True) as client: print(client.read_work_pool('gpu').name)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=guarded.folder, env=guarded.env, capture_output=True, text=True, check=False)
    assert done.stdout == "gpu\n", done.stderr


def test_the_token_is_nowhere_else(guarded: Place) -> None:
    root = guarded.folder / ".muomni/workplace"
    for secret in (told(guarded), base64.b64encode(f"{access.USER}:{told(guarded)}".encode()).decode()[:-4]):
        assert holding(guarded.folder, secret) == [".muomni/workplace/token"] * (secret == told(guarded))
        lines = [" ".join(quietly(process.cmdline) or []) for process in psutil.process_iter()]
        assert not [line for line in lines if secret in line]
    for name in ("token", "auth.db", "auth.ini"):
        assert stat.S_IMODE((root / name).stat().st_mode) == 0o600, name


def test_a_token_of_ones_own(guarded: Place) -> None:
    drawn = told(guarded)
    guarded.muomni("down")
    guarded.env["MUOMNI_TOKEN"] = ANOTHER
    said = guarded.up()
    assert "token: as MUOMNI_TOKEN says" in said and ANOTHER not in said and not holding(guarded.folder, ANOTHER)
    for page in (f"{guarded.api}/admin/version", f"http://127.0.0.1:{guarded.mlflow_port}/"):
        assert httpx.get(page, auth=(access.USER, drawn)).status_code == 401
        assert httpx.get(page, auth=(access.USER, ANOTHER)).status_code == 200
    assert "ended the workplace" in guarded.muomni("down").stderr


@pytest.mark.parametrize("token", ["", "short", "with a space in the middle", "ümläute-sind-hier-nicht", "a" * 15])
def test_a_token_that_cannot_be_used_is_refused(token: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MUOMNI_STATE", str(tmp_path))
    monkeypatch.setenv("MUOMNI_TOKEN", token)
    with pytest.raises(UserError, match="MUOMNI_TOKEN: a token has 16 or more"):
        Access.of("127.0.0.1")
    assert not list(tmp_path.iterdir())


def test_a_kept_token_that_others_can_read_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MUOMNI_STATE", str(tmp_path))
    monkeypatch.delenv("MUOMNI_TOKEN", raising=False)
    assert Access.of("127.0.0.1").token is None and not list(tmp_path.iterdir())
    drawn = Access.of("::")
    assert drawn.drawn and drawn.token and drawn.token not in repr(drawn) and Access.of("::").token == drawn.token
    access.token_file().chmod(0o640)
    with pytest.raises(UserError, match="others can read the token"):
        Access.of("::")
    access.token_file().chmod(0o600)
    access.token_file().write_text("")
    with pytest.raises(UserError, match="remove the file"):
        Access.of("::")


def test_what_is_loopback() -> None:
    assert all(access.is_loopback(host) for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"))
    for host in ("", "0.0.0.0", "::", "192.0.2.2", "127.0.0.1.example", "localhost.example", "::ffff:127.0.0.1"):
        assert not access.is_loopback(host)
    assert {"localhost", "[::1]", "omni.example"} <= set(Access("0.0.0.0", ["omni.example"]).names())
    assert "0.0.0.0" not in Access("0.0.0.0").names() and Access("::").near == "[::1]"


def answer(guard: Guard, kind: str = "http", path: str = "/", **headers: str) -> Any:
    """What a guard answers a request."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {}

    named = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    asyncio.run(guard({"type": kind, "path": path, "headers": named}, receive, send))
    return sent[0].get("status", sent[0]["type"])


async def behind(scope: Any, receive: Any, send: Any) -> None:
    """What is guarded."""
    await send({"type": "behind"})


def test_the_guard() -> None:
    ours = Guard(behind, ["localhost", "127.0.0.1", "[::1]"], ["omni.example"])
    for host in ("localhost:4200", "LOCALHOST", "127.0.0.1:1", "[::1]:4200"):
        assert answer(ours, host=host) == answer(ours, "websocket", host=host, origin=f"http://{host}") == "behind"
    for host in ("", "evil.example", "localhost.evil.example:4200", "10.0.0.1", "[::2]:4200", "localhost@evil.example"):
        assert answer(ours, host=host) == 403
        assert answer(ours, "websocket", host=host) == "websocket.close"
    assert answer(ours, host="localhost:4200", origin="https://omni.example") == "behind", "through a proxy"
    for origin in ("http://evil.example", "null", "", "http://localhost:3000", "http://127.0.0.1:4200"):
        assert answer(ours, host="localhost:4200", origin=origin) == 403, origin
        assert answer(ours, "websocket", host="localhost:4200", origin=origin) == "websocket.close"
    assert answer(ours, "lifespan") == "behind"
    closed = Guard(behind, ["localhost"], auth="muomni:ä token")
    right = base64.b64encode("muomni:ä token".encode()).decode()
    assert answer(closed, host="localhost", authorization=f"Basic {right}") == "behind"
    for wrong in ("", "Basic", f"Bearer {right}", f"Basic {right}x", "Basic " + "ä" * 9):
        assert answer(closed, host="localhost", authorization=wrong) == 401, wrong
    assert answer(closed, host="localhost", path="/api/health") == "behind"
    assert answer(closed, host="localhost", path="/api/healthy") == 401
