"""What stands before the routes: who may ask, how much, and whether anything new is taken at all."""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from muomni.listening import foreign
from muomni.serve.errors import RETRY_S, ApiError, as_api_error, response, too_large
from muomni.serve.house import House
from muomni.serve.metrics import Metrics
from muomni.serve.settings import Settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

GUARDED = ("/v1/", "/metrics")  # what asks for the key; the page holds nothing secret and cannot be sent with one
KEY_PROTOCOL = "openai-insecure-api-key."  # how browsers send a key with a WebSocket, which has no such header there
POLICY_VIOLATION = 1008  # why a WebSocket is closed, RFC 6455
GONE = 499  # the status in the metrics of what nobody waited for
OTHER = "other"  # the route in the metrics of what is no route


class Gate:
    """An ASGI application that hands on what may come in.

    Names and pages are checked, then the key, then whether the server takes anything; a request's body is counted and
    timed as it comes. As many requests to the model as it has slots and places in its queue are in here at most.

    Args:
        app: what is guarded.
        house: the model; tells whether the server stops, and how many requests it takes.
        settings: who may ask, and limits.
        metrics: are told of every request.

    Attributes:
        asking: requests to the model that are in here.
        idle: set while there are none.
    """

    def __init__(self, app: App, house: House, settings: Settings, metrics: Metrics) -> None:
        self.app, self.house, self.settings, self.metrics = app, house, settings, metrics
        self.asking = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        if scope["type"] == "websocket":
            try:
                self.check_sender(scope)
                self.check_open()
            except ApiError as error:
                await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": str(error.detail)[:120]})
                return
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self.counted(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request, with what the metrics say of it."""
        begin, status = time.perf_counter(), GONE

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.metrics.in_progress.inc()
        try:
            await self.admitted(scope, receive, noted)
        except Exception as error:
            if status != GONE:  # its beginning is on its way; the connection ends
                raise
            await response(as_api_error(error))(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", OTHER)
            self.metrics.in_progress.dec()
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.duration.labels(route).observe(time.perf_counter() - begin)

    async def admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request, refused or handed on."""
        asks = scope["method"] == "POST" and scope["path"].startswith("/v1/")
        try:
            self.check_sender(scope)
            if asks:
                self.check_open()
                self.check_body(scope)
        except ApiError as error:
            await response(error)(scope, receive, send)
            return
        if not asks:
            await self.app(scope, receive, send)
            return
        self.asking += 1
        self.idle.clear()
        try:
            await self.app(scope, Body(self.settings, receive), send)
        finally:
            self.asking -= 1
            if not self.asking:
                self.idle.set()

    def check_sender(self, scope: Scope) -> None:
        """Raise `ApiError` unless name, page and key are right."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        settings = self.settings
        why = foreign(headers.get(b"host", ""), headers.get(b"origin"), settings.names, settings.public)
        if why:
            raise ApiError(403, f"{why}; start the server with --host-name to add one", None, "foreign_host")
        if settings.key is None or not f"{scope['path']}/".startswith(GUARDED):
            return
        shown = [headers.get(b"authorization", "").removeprefix("Bearer ").strip()]
        if scope["type"] == "websocket":
            shown += [name.removeprefix(KEY_PROTOCOL) for name in scope.get("subprotocols", ())]
        if not any(hmac.compare_digest(one.encode(), settings.key.encode()) for one in shown):
            message = "no API key, or a wrong one; send the server's as `Authorization: Bearer KEY`"
            raise ApiError(401, message, None, "invalid_api_key", {"WWW-Authenticate": "Bearer"})

    def check_open(self) -> None:
        """Raise `ApiError` unless the server takes requests, and has room for one."""
        if self.house.stopping.is_set():
            message = "the server is stopping; try again later"
            raise ApiError(503, message, None, "stopping", {"Retry-After": str(RETRY_S)})
        source = self.house.source
        if self.asking >= source.slots + source.queue:
            message = f"the server is busy: {self.asking} requests are in it (--slots and --queue); try again later"
            raise ApiError(429, message, None, "queue_full", {"Retry-After": str(RETRY_S)})

    def check_body(self, scope: Scope) -> None:
        """Raise `ApiError` if a body says itself that it is too large."""
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value[:20]) > self.settings.limits.body:
                raise over(self.settings)


def over(settings: Settings) -> ApiError:
    """The error of a body that is too large."""
    return too_large(f"the body has more than {settings.limits.body:,} bytes (--body-bytes); send less")


class Body:
    """``receive`` of a request, which counts the body's bytes and gives them a time to come in."""

    def __init__(self, settings: Settings, receive: Receive) -> None:
        self.settings, self.receive = settings, receive
        self.count, self.complete = 0, False
        self.end = time.monotonic() + settings.limits.upload_s

    async def __call__(self) -> Message:
        """The next message; raises `ApiError` if it is too much, or takes too long."""
        if self.complete:  # nothing more comes but that the client has gone
            return await self.receive()
        try:
            async with asyncio.timeout(self.end - time.monotonic()):
                message = await self.receive()
        except TimeoutError:
            text = f"the body did not come within {self.settings.limits.upload_s:.0f} s (--upload-seconds)"
            raise ApiError(408, text, None, "timeout") from None
        if message["type"] == "http.request":
            self.count += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
            if self.count > self.settings.limits.body:
                raise over(self.settings)
        return message
