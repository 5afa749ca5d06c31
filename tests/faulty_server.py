"""A server that stands before a real MLflow and answers wrongly: what proxies, login pages and broken networks do."""

import datetime
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Answer = Callable[["FaultyServer", socket.socket, bytes], None]
PAGE = b"<html><head><title>Sign in</title></head><body><form>\x1b[31mPassword</form></body></html>"


class FaultyServer:
    """Passes requests on to a real server, or answers them by itself.

    Args:
        upstream: the real one, from `mlflow_app`.
        certificate: a file with a key and a certificate, to speak TLS.

    Attributes:
        answer: how to answer now; None: as the real server does.
        asked: how many requests came.
        faults: how many of them were answered wrongly.
    """

    def __init__(self, upstream: Any, certificate: Path | None = None) -> None:
        self.upstream = upstream
        self.answer: Answer | None = None
        self.asked = self.faults = 0
        self.closing = threading.Event()
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
        if self.tls is not None and certificate is not None:
            self.tls.load_cert_chain(certificate)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self.serve, daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more."""
        self.closing.set()
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def serve(self) -> None:
        """Take connections."""
        while not self.closing.is_set():
            with suppress(OSError):
                taken, _ = self.listener.accept()
                threading.Thread(target=self.talk, args=(taken,), daemon=True).start()

    def talk(self, taken: socket.socket) -> None:
        """One request and its answer; the connection is closed then."""
        with suppress(OSError, ValueError), taken:
            taken.settimeout(30)
            wire = self.tls.wrap_socket(taken, server_side=True) if self.tls else taken
            with wire:
                request = read_request(wire)
                self.asked += 1
                answer = self.answer
                if answer is not None:
                    self.faults += 1
                    answer(self, wire, request)
                else:
                    wire.sendall(self.forward(request))
                with suppress(OSError):
                    wire.shutdown(socket.SHUT_WR)

    def forward(self, request: bytes) -> bytes:
        """The real server's answer."""
        head, _, body = request.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {
            k: v for k, _, v in (line.partition(": ") for line in lines) if k.lower() in ("content-type", "accept")
        }
        found = self.upstream.test_client().open(path, method=method, data=body, headers=headers)
        return whole(found.status_code, found.get_data(), found.content_type or "application/json")


def mlflow_app(folder: Path, patch: pytest.MonkeyPatch) -> Any:
    """MLflow's own server, a WSGI application, with its database and files in a folder, in this process.

    As a program of its own it takes half a minute to start on a busy machine.
    """
    settings = {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    }
    for name, value in settings.items():
        patch.setenv(name, value)
    from mlflow.server import app, handlers

    for name in ("_tracking_store", "_model_registry_store", "_artifact_repo"):
        patch.setattr(handlers, name, None)
    patch.setenv("MLFLOW_TRACKING_URI", "")
    made = app.test_client().get("/api/2.0/mlflow/experiments/get?experiment_id=0")  # which sets that variable
    assert made.status_code == 200, made.get_data()
    return app


def read_request(wire: socket.socket) -> bytes:
    """A request with its body.

    Raises:
        ValueError: if it is cut off.
    """
    data = received(wire)
    if data[:1] == b"\x16":  # the beginning of TLS
        wire.sendall(whole(400, b"plain HTTP here", "text/plain"))
        raise ValueError("TLS")
    while b"\r\n\r\n" not in data:
        data += received(wire)
    head, _, body = data.partition(b"\r\n\r\n")
    headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head.decode("latin-1").split("\r\n"))}
    while len(body) < int(headers.get("content-length", 0)):
        body += received(wire)
    return head + b"\r\n\r\n" + body


def received(wire: socket.socket) -> bytes:
    """What comes next.

    Raises:
        ValueError: if nothing does any more.
    """
    data = wire.recv(1 << 16)
    if not data:
        raise ValueError("cut off")
    return data


def whole(status: int, body: bytes, kind: str = "application/json", *more: str) -> bytes:
    """An answer."""
    lines = [f"HTTP/1.1 {status} so", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def plain(status: int, body: bytes, kind: str = "application/json", *more: str) -> Answer:
    """The same answer each time."""
    return lambda server, wire, request: wire.sendall(whole(status, body, kind, *more))


def half(server: FaultyServer, wire: socket.socket, request: bytes) -> None:
    """What was asked is done, and half of the answer comes."""
    answer = server.forward(request)
    wire.sendall(answer[: len(answer) // 2])


def done_but_500(server: FaultyServer, wire: socket.socket, request: bytes) -> None:
    """What was asked is done, and a proxy says that it failed."""
    server.forward(request)
    wire.sendall(whole(502, b"bad gateway", "text/plain"))


def swallowed(server: FaultyServer, wire: socket.socket, request: bytes) -> None:
    """Reading works; what is to be written is lost, with an answer as if all were well."""
    reads = request.startswith(b"GET") or b"/search" in request.partition(b"\r\n")[0]
    wire.sendall(server.forward(request) if reads else whole(200, b"{}"))


def slow(server: FaultyServer, wire: socket.socket, request: bytes) -> None:
    """The right answer, a while later."""
    server.closing.wait(0.05)
    wire.sendall(server.forward(request))


def silent(server: FaultyServer, wire: socket.socket, request: bytes) -> None:
    """Nothing."""
    server.closing.wait(20)


def dripping(start: bytes, piece: bytes, pause: float) -> Answer:
    """An answer that never ends."""

    def answer(server: FaultyServer, wire: socket.socket, request: bytes) -> None:
        wire.sendall(start)
        end = time.monotonic() + 30
        while not server.closing.wait(pause) and time.monotonic() < end:
            wire.sendall(piece)

    return answer


def redirect(server: FaultyServer, wire: socket.socket, request: bytes) -> None:
    """To itself."""
    path = request.split(b" ", 2)[1].decode("latin-1")
    wire.sendall(whole(302, b"", "text/html", f"Location: {path}"))


ANSWERS: dict[str, Answer] = {
    "500": plain(500, b"Internal Server Error", "text/plain"),
    "503": plain(503, b"", "text/plain", "Retry-After: 3600"),
    "429": plain(
        429, json.dumps({"error_code": "REQUEST_LIMIT_EXCEEDED"}).encode(), "application/json", "Retry-After: 9"
    ),
    "401": plain(401, b"You are not authenticated.", "text/plain", 'WWW-Authenticate: Basic realm="mlflow"'),
    "403": plain(403, json.dumps({"error_code": "PERMISSION_DENIED", "message": "no"}).encode()),
    "404": plain(404, b"<html>nginx</html>", "text/html"),
    "login page": plain(200, PAGE, "text/html"),
    "nothing in it": plain(200, b"{}"),
    "empty": plain(200, b""),
    "other JSON": plain(200, json.dumps({"status": "ok", "experiment": {"name": "x"}, "run": {"info": {}}}).encode()),
    "odd JSON": plain(200, json.dumps({"experiment": 7, "run": [], "runs": "none"}).encode()),
    "a list": plain(200, b"[]"),
    "no UTF-8": plain(200, b"\xff\xfe{"),
    "no HTTP": lambda server, wire, request: wire.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "closed": lambda server, wire, request: None,
    "half": half,
    "done but 500": done_but_500,
    "swallowed": swallowed,
    "silent": silent,
    "endless head": dripping(b"HTTP/1.1 200 OK\r\nX-A: ", b"a", 0.2),
    "endless body": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{", b" ", 0.2),
    "flood": dripping(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{", b" " * (1 << 20), 0.0),
    "redirects": redirect,
}


def self_signed(path: Path) -> Path:
    """A key and a certificate for 127.0.0.1 that nobody trusts, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    return path
