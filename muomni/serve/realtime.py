"""The realtime interface: speech in and out over a WebSocket, with events of OpenAI's Realtime API.

`docs/realtime.md` tells what of it there is.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field

from fastapi import APIRouter, FastAPI, WebSocket, WebSocketDisconnect

from muomni.serve.errors import RETRY_S, ApiError, response
from muomni.serve.hall import Hall
from muomni.serve.realtime_channel import Outbox
from muomni.serve.realtime_dialogue import Limits
from muomni.serve.realtime_session import Session

GOING_AWAY, POLICY = 1001, 1008  # RFC 6455
SUBPROTOCOL = "realtime"  # what browsers ask for beside their key
LAST_WORDS_S = 5.0  # for a client to take what was sent before the connection is closed
router = APIRouter()


@dataclass
class Connections:
    """What all sessions of an application share; ``app.state.realtime``.

    Attributes:
        limits: of each.
        sessions: that are open.
        changed: set whenever one begins or ends.
    """

    limits: Limits = field(default_factory=Limits)
    sessions: set[Session] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def ended(self) -> None:
        """Wait until no session is open. They end by themselves, after their answers, once the server is to stop."""
        while self.sessions:
            self.changed.clear()
            await self.changed.wait()


def connections(app: FastAPI) -> Connections:
    """Those of an application; made with the first."""
    if not hasattr(app.state, "realtime"):
        app.state.realtime = Connections()
    found: Connections = app.state.realtime
    return found


@router.websocket("/v1/realtime")
async def realtime(websocket: WebSocket) -> None:
    """A session, until the client goes, the server stops, or a limit is reached."""
    hall: Hall = websocket.app.state.hall
    shared = connections(websocket.app)
    try:
        check(websocket, hall, shared)
    except ApiError as error:
        await websocket.send_denial_response(response(error))
        return
    offered = websocket.scope.get("subprotocols", ())
    await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
    outbox = Outbox(shared.limits.unsent)
    session = Session(hall, outbox, shared.limits)
    shared.sessions.add(session)
    try:
        await serve(websocket, session, outbox)
    finally:
        shared.sessions.discard(session)
        shared.changed.set()


def check(websocket: WebSocket, hall: Hall, shared: Connections) -> None:
    """Raise `ApiError` if there is no room for a session, or no such model."""
    if len(shared.sessions) >= shared.limits.connections:
        message = f"{len(shared.sessions)} realtime sessions are open; try again later"
        raise ApiError(429, message, None, "too_many_sessions", {"Retry-After": str(RETRY_S)})
    model = websocket.query_params.get("model", hall.house.name)
    if model != hall.house.name:
        message = f"the model '{model[:80]}' does not exist; /v1/models lists what does"
        raise ApiError(404, message, "model", "model_not_found")


async def serve(websocket: WebSocket, session: Session, outbox: Outbox) -> None:
    """Read events, send events, and watch for what ends the session, until one of them is done."""
    session.begin()
    works = (read(websocket, session), outbox.run(websocket), watch(session, outbox))
    tasks = {asyncio.create_task(work) for work in works}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await session.dialogue.close()
    # Starlette raises these where the connection has gone.
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
        for why in [task.result() for task in done]:
            if why:
                await asyncio.wait_for(websocket.close(*why), LAST_WORDS_S)


async def read(websocket: WebSocket, session: Session) -> tuple[int, str] | None:
    """Follow the client's events; gives why the connection is to be closed, or None if it is."""
    while True:
        try:
            async with asyncio.timeout(session.limits.idle_s):
                message = await websocket.receive()
        except TimeoutError:
            if session.answering or session.playback.playing:
                continue
            return 1000, f"idle for {session.limits.idle_s:.0f} s"
        if message["type"] == "websocket.disconnect":
            return None
        await session.follow(message.get("text") or message.get("bytes") or "")


async def watch(session: Session, outbox: Outbox) -> tuple[int, str]:
    """Wait until the server stops, the session has lasted its time or the client was too slow; gives why."""
    stop, slow = (asyncio.create_task(e.wait()) for e in (session.hall.house.stopping, outbox.overflowed))
    try:
        await asyncio.wait((stop, slow), timeout=session.limits.session_s, return_when=asyncio.FIRST_COMPLETED)
        if slow.done():
            return POLICY, "events came faster than they were read"
        if stop.done():
            await session.finish()
            session.tell("server_error", "the server is stopping; connect again later", "stopping")
            why = GOING_AWAY, "the server is stopping"
        else:
            session.tell("invalid_request_error", "the session has lasted its time; connect again", "session_expired")
            why = POLICY, "the session has lasted its time"
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(outbox.emptied.wait(), LAST_WORDS_S)
        return why
    finally:
        stop.cancel()
        slow.cancel()
