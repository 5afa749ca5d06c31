"""The application: routes, what stands before them, and what they share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response

from muomni.serve import chat, hearing, schema, speaking
from muomni.serve.documents import document, failures
from muomni.serve.errors import ApiError, Json, add_handlers
from muomni.serve.gate import Gate
from muomni.serve.hall import Hall, hall_of
from muomni.serve.house import House
from muomni.serve.settings import Settings

METRICS = "text/plain; version=0.0.4; charset=utf-8"
router = APIRouter()


@router.get("/v1/models", response_model=schema.ModelList, responses=failures(401, 403), summary="All models: one")
async def models(request: Request) -> Response:
    """The model that answers."""
    return Json(schema.ModelList(data=[described(hall_of(request))]).model_dump())


@router.get("/v1/models/{model}", response_model=schema.Model, responses=failures(401, 403, 404), summary="One model")
async def model(request: Request, model: str) -> Response:
    """The model that answers, if it has this name."""
    hall = hall_of(request)
    if model != hall.house.name:
        raise ApiError(404, f"the model '{model[:80]}' does not exist", "model", "model_not_found")
    return Json(described(hall).model_dump())


def described(hall: Hall) -> schema.Model:
    """The model that answers."""
    current = hall.house.current
    voices = list(current.engine.model.talker.cfg.voices)
    return schema.Model(id=hall.house.name, created=current.created, voices=voices)


@router.get("/healthz", response_model=schema.Health, responses=failures(403), summary="Whether the server lives")
async def healthz() -> Response:
    """It answers, so it lives."""
    return Json({"status": "ok"})


@router.get("/readyz", response_model=schema.Health, responses=failures(403, 503), summary="Whether requests are taken")
async def readyz(request: Request) -> Response:
    """503 once the server is to stop."""
    if not hall_of(request).house.ready:
        raise ApiError(503, "the server is stopping", None, "stopping")
    return Json({"status": "ready"})


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **failures(401, 403)},
    summary="For Prometheus",
)
async def metrics(request: Request) -> Response:
    """Counters and times."""
    hall = hall_of(request)
    served, told = hall.house.current, hall.metrics
    told.active.set(served.engine.active)
    told.queued.set(served.engine.queued)
    told.slots.set(hall.house.source.slots)
    told.changes.set(hall.house.changes)
    told.model.info({"name": served.name, "fingerprint": served.fingerprint, "weights": hall.house.source.weights})
    return Response(told.text(), media_type=METRICS)


def make_app(house: House, settings: Settings) -> FastAPI:
    """The application.

    Args:
        house: the model, loaded.
        settings: limits, and who may ask.

    Returns:
        The application; ``app.state.house`` is the model, ``app.state.hall`` what the routes share, and
        ``app.state.gate`` counts the requests in it.
    """
    hall = Hall(house, settings)

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        house.start()
        yield
        await house.stop(0.0)
        hall.close()

    app = FastAPI(title="muOmni", docs_url=None, redoc_url=None, lifespan=living)
    app.state.house, app.state.hall, app.state.settings = house, hall, settings
    add_handlers(app)
    for part in (router, chat.router, speaking.router, hearing.router):
        app.include_router(part)
    for name in ("realtime", "page"):
        add_part(app, name)
    made: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not made:
            made.update(document(app, settings.key is not None))
        return made

    app.openapi = openapi  # type: ignore[method-assign]

    class Guarded(Gate):
        def __init__(self, inner: Any) -> None:
            super().__init__(inner, house, settings, hall.metrics)
            app.state.gate = self

    app.add_middleware(Guarded)
    return app


def add_part(app: FastAPI, name: str) -> None:
    """The realtime interface and the page, where they are."""
    if find_spec(f"muomni.serve.{name}") is None:
        return
    part = import_module(f"muomni.serve.{name}")
    if name == "realtime":
        app.include_router(part.router)
    else:
        part.add_page(app)
