"""A proxy before a server that breaks some of its answers: for tests of reading from an object store."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self


class CuttingProxy:
    """Passes on what a client asks of a server, and what the server answers as far as the fault allows.

    Args:
        port: of the server on this machine.
        fault: given the request's path and how often it was asked for before, says what happens to the answer: ``None``
            passes it on, ``("cut", n)`` closes the connection after n bytes, ``("stall", n)`` says nothing after them,
            ``("flip", n)`` changes the byte there.

    Attributes:
        asked: paths of all requests, in order.
    """

    def __init__(self, port: int, fault: Callable[[str, int], tuple[str, int] | None]) -> None:
        self.server, self.fault, self.asked = port, fault, list[str]()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._ended = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        """Serve."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Take no more connections."""
        self._ended.set()
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One request a connection: the answer says so, as the server is asked to close it."""
        with client, socket.create_connection(("127.0.0.1", self.server)) as server:
            head = b""
            while b"\r\n\r\n" not in head:
                part = client.recv(65536)
                if not part:
                    return
                head += part
            method, path = head.split(b" ", 2)[:2]
            with self._lock:
                name = path.decode().partition("?")[0]
                before = self.asked.count(name) if method == b"GET" else 0
                if method == b"GET":
                    self.asked.append(name)
            fault = self.fault(name, before) if method == b"GET" else None
            lines, _, body = head.partition(b"\r\n\r\n")
            kept = [line for line in lines.split(b"\r\n") if not line.lower().startswith(b"connection:")]
            server.sendall(b"\r\n".join([*kept, b"Connection: close"]) + b"\r\n\r\n" + body)
            with suppress(OSError):  # the client has gone
                self._answer(server, client, fault)

    def _answer(self, server: socket.socket, client: socket.socket, fault: tuple[str, int] | None) -> None:
        kind, at = fault or ("", 0)
        sent = 0
        while part := server.recv(65536):
            if kind and sent <= at < sent + len(part):
                if kind == "flip":
                    part = part[: at - sent] + bytes([part[at - sent] ^ 1]) + part[at - sent + 1 :]
                else:
                    client.sendall(part[: at - sent])
                    if kind == "stall":
                        self._ended.wait(30)
                    return
            client.sendall(part)
            sent += len(part)
