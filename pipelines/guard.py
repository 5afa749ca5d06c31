"""What stands before Prefect's server: names that it knows, no other page's requests, and the token for its pages too.

Prefect asks for the token at its API only, answers to any name, and lets every page of a browser read and write.
"""

import base64
import hmac
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from muomni.listening import foreign

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/api/health", "/api/ready")  # whether it lives may be asked without a token
POLICY_VIOLATION = 1008  # why a WebSocket is closed, RFC 6455


class Guard:
    """An ASGI application that hands on what may come in.

    Args:
        app: what is guarded.
        names: by which it may be called, without ports: a tunnel has a port of its own.
        public: names whose pages are ours though requests come under another name, from a reverse proxy.
        auth: ``user:password`` that each request must have; None: nothing. WebSockets are left to the application,
            which asks for it in a message.
    """

    def __init__(self, app: App, names: Collection[str], public: Collection[str] = (), auth: str | None = None) -> None:
        self.app, self.names, self.public = app, names, public
        self.auth = None if auth is None else b"Basic " + base64.b64encode(auth.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        refused = self.refused(scope) if scope["type"] in ("http", "websocket") else None
        if refused is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": refused[1]})
        else:
            status, text = refused
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            if status == 401:
                headers.append((b"www-authenticate", b'Basic realm="muOmni", charset="UTF-8"'))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": text.encode()})

    def refused(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason if a request may not come in."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        why = foreign(headers.get(b"host", ""), headers.get(b"origin"), self.names, self.public)
        if why is not None:
            return 403, f"{why}; start the workplace with --name to add one\n"
        if self.auth is None or scope["type"] == "websocket" or scope["path"] in OPEN:
            return None
        if hmac.compare_digest(headers.get(b"authorization", "").encode("latin-1"), self.auth):
            return None
        return 401, "this workplace asks for its user and token\n"
