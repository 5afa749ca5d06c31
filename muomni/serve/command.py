"""``muomni serve``: options to settings, and a server that ends what it began."""

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path
from types import FrameType

import torch
import uvicorn
from fastapi import FastAPI

from muomni.errors import UserError
from muomni.listening import in_address, is_loopback, own_names
from muomni.serve.app import make_app
from muomni.serve.house import House, Source
from muomni.serve.realtime import connections
from muomni.serve.settings import Limits, Settings

KEY = "MUOMNI_API_KEY"
SHORTEST = 16  # characters of a key
ENDED = 5  # seconds for connections to close once all is answered


class Server(uvicorn.Server):
    """Takes nothing new after a signal, finishes what was begun, and ends; a second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, grace: float, told: str = "") -> None:
        super().__init__(config)
        self.app, self.grace, self.told = app, grace, told
        self.ending: asyncio.Task[None] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list | None = None) -> None:
        """Serve until a signal comes."""
        self.loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def startup(self, sockets: list | None = None) -> None:
        """Listen, and then say where: whoever reads it can ask at once."""
        await super().startup(sockets)
        if self.started and self.told:
            print(self.told, file=sys.stderr, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """What SIGTERM and SIGINT do."""
        house: House = self.app.state.house
        if house.stopping.is_set() or not self.started or self.loop is None:
            self.should_exit = self.force_exit = True
        else:
            house.stopping.set()
            self.loop.call_soon_threadsafe(self.end)

    def end(self) -> None:
        """Begin to end."""
        print(f"stopping; what was begun has {self.grace:g} s", file=sys.stderr, flush=True)
        self.ending = asyncio.create_task(self.finish())

    async def finish(self) -> None:
        """End once all that was begun is answered."""
        try:
            async with asyncio.timeout(self.grace):
                await self.app.state.gate.idle.wait()
                await connections(self.app).ended()
        except TimeoutError:
            print(f"{self.app.state.gate.asking} requests took longer; they end", file=sys.stderr, flush=True)
            await asyncio.to_thread(self.app.state.house.current.engine.close)
        self.should_exit = True


def key_of(args: argparse.Namespace) -> str | None:
    """The key that clients must show; None if everybody on this machine may ask.

    Raises:
        UserError: if there is none though others can reach the server, or it cannot be used.
    """
    given = os.environ.get(KEY)
    where = KEY
    if args.api_key_file is not None:
        path = Path(args.api_key_file)
        try:
            given, where = path.read_text(encoding="utf-8").strip(), str(path)
            if path.stat().st_mode & 0o077:
                raise UserError(f"{path}: others can read the key; run `chmod 600 {path}`")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "is no text"
            raise UserError(f"--api-key-file {path}: cannot be read ({reason})") from None
    if given is None:
        if is_loopback(args.host):
            return None
        raise UserError(
            f"--host {args.host}: others can reach it, so clients must show a key; give --api-key-file, or set {KEY}"
        )
    if len(given) < SHORTEST or not given.isascii() or any(c.isspace() or not c.isprintable() for c in given):
        raise UserError(f"{where}: a key has {SHORTEST} or more ASCII characters without spaces, this has not")
    return given


def settings_of(args: argparse.Namespace) -> Settings:
    """The options as settings. Raises `UserError`."""
    limits = Limits(**{name: getattr(args, name) for name in Limits.__dataclass_fields__})
    public = [name.lower() for name in args.host_name]
    return Settings(
        limits=limits,
        names=own_names(args.host, public),
        public=public,
        key=key_of(args),
        allow_remote=args.allow_remote,
        grace=args.grace,
        workers=args.workers,
    )


def source_of(args: argparse.Namespace) -> Source:
    """Where the model comes from. Raises `UserError`."""
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA GPU on this machine; use cpu or auto")
    gpu = args.device != "cpu" and torch.cuda.is_available()
    return Source(
        place=args.model or args.checkpoint,
        registered=args.model is not None,
        device="cuda" if gpu else "cpu",
        weights=args.weights,
        slots=args.slots,
        queue=args.queue,
        threads=args.threads,
    )


def serve(args: argparse.Namespace) -> int:
    """Serve until a signal comes.

    Raises:
        UserError: if the model cannot be loaded, or nothing can listen there.
    """
    settings, source = settings_of(args), source_of(args)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    house = House(source, args.served_name, args.check_every, args.drain)
    app = make_app(house, settings)
    config = uvicorn.Config(
        app,
        host=args.host,
        port=args.port,
        log_level="warning",
        access_log=False,  # addresses may hold what users wrote
        timeout_graceful_shutdown=ENDED,
        timeout_keep_alive=30,
        ws_max_size=settings.limits.body,
        server_header=False,
        lifespan="on",
    )
    try:
        listener = config.bind_socket()
    except SystemExit:
        raise UserError(f"--port {args.port}: cannot listen at {args.host}; take another port") from None
    place = f"http://{in_address(args.host)}:{listener.getsockname()[1]}"
    told = f"{house.name} ({house.current.fingerprint}) answers at {place}/v1"
    server = Server(config, app, settings.grace, told)
    asyncio.run(server.serve([listener]))
    return 0
