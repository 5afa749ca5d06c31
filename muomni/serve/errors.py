"""Errors as OpenAI's API tells them: a status and ``{"error": {"message", "type", "param", "code"}}``."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException, RequestValidationError
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse, Response

from muomni.errors import UserError, one_line, shortened
from muomni.serve.engine import Closed, Full
from muomni.serve.schema_chat import IMPOSSIBLE

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
LONGEST = 400  # characters of a message, which may quote what came
RETRY_S = 2  # after which another try is worth it while the server stops or changes
log = logging.getLogger("muomni.serve")


class ApiError(HTTPException):
    """A request that is refused.

    Args:
        status: of HTTP.
        message: what is wrong and what to do.
        param: the field that is meant.
        code: short name for programs.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.param, self.code = param, code


def invalid(message: str, param: str | None = None, code: str | None = "invalid_value") -> ApiError:
    """A value that cannot be used: status 400."""
    return ApiError(400, message, param, code)


def too_large(message: str, param: str | None = None) -> ApiError:
    """Something over a limit: status 413."""
    return ApiError(413, message, param, "limit_exceeded")


class Json(JSONResponse):
    """JSON in ASCII: texts may hold halves of characters, which UTF-8 does not know."""

    def render(self, content: Any) -> bytes:
        """The bytes."""
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """What stands in the body of an error."""
    kind = TYPES.get(status, "invalid_request_error")
    return {"error": {"message": shortened(one_line(message), LONGEST), "type": kind, "param": param, "code": code}}


def as_api_error(error: BaseException) -> ApiError:
    """Any failure as what a client is told; one that nobody foresaw is logged and told without its words."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Full):
        after = {"Retry-After": str(max(1, math.ceil(error.seconds)))}
        return ApiError(429, str(error), None, "queue_full", after)
    if isinstance(error, Closed):
        return ApiError(503, str(error), None, "stopping", {"Retry-After": str(RETRY_S)})
    if isinstance(error, UserError):
        return invalid(str(error))
    if isinstance(error, TimeoutError):
        return ApiError(503, "the answer took longer than a request may (--request-seconds)", None, "timeout")
    log.error("a request failed", exc_info=error)
    return ApiError(500, "the server failed; its log has more", None, "internal_error")


def response(error: ApiError) -> Json:
    """The response of an error."""
    body = error_body(error.status_code, str(error.detail), error.param, error.code)
    return Json(body, error.status_code, error.headers)


def field_of(place: Sequence[int | str], body: object, missing: bool) -> str:
    """The name of a field, as ``messages[0].content``.

    Args:
        place: where pydantic found a fault; among the keys stand the names of the forms that it tried.
        body: what was sent.
        missing: whether the last key is not there.
    """
    name, value = "", body
    for number, key in enumerate(place):
        if isinstance(value, dict) and isinstance(key, str) and key in value:
            name, value = f"{name}.{key}", value[key]
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            name, value = f"{name}[{key}]", value[key]
        elif missing and number == len(place) - 1:
            name = f"{name}.{key}"
    return shortened(one_line(name.lstrip(".")), 100)


def of_validation(error: RequestValidationError) -> ApiError:
    """The fault of a body that does not have its form; of several the one that is deepest in it."""
    faults = [(fault, fault["loc"][1:], str(fault["type"])) for fault in error.errors()]
    body = dict(error.body) if isinstance(error.body, FormData) else error.body
    named = [(field_of(place, body, kind == "missing"), kind, fault) for fault, place, kind in faults]
    param, kind, fault = max(named, key=lambda one: (one[0].count(".") + one[0].count("["), bool(one[0])))
    if kind == "json_invalid":
        why = one_line(fault.get("ctx", {}).get("error", ""))
        return ApiError(400, f"the body is not JSON ({why})", None, "bad_json")
    if kind == "extra_forbidden":
        known = param in IMPOSSIBLE
        why = "this model cannot follow it" if known else "this server knows no such parameter"
        code = "unsupported_parameter" if known else "unknown_parameter"
        return ApiError(400, f"{param}: {why}; leave it out", param, code)
    if kind == "too_long" and fault.get("ctx", {}).get("max_length") == 0:
        return ApiError(400, f"{param}: this model has none; leave it out or empty", param, "unsupported_parameter")
    if kind == "missing":
        return ApiError(400, f"{param or 'body'}: is missing; give it", param or None, "missing_required_parameter")
    return ApiError(400, f"{param or 'body'}: {fault['msg']}", param or None, "invalid_value")


def add_handlers(app: FastAPI) -> None:
    """Have every failure of an application told in this shape."""

    async def refused(request: Request, error: Exception) -> Response:
        return response(as_api_error(error))

    async def misformed(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return response(of_validation(error))

    async def of_http(request: Request, error: Exception) -> Response:
        if isinstance(error, ApiError):
            return response(error)
        assert isinstance(error, StarletteHTTPException)
        told = {404: f"no route {request.url.path[:100]}", 405: f"{request.method} is not for {request.url.path[:100]}"}
        message = told.get(error.status_code, str(error.detail))
        return response(ApiError(error.status_code, message, None, None, error.headers))

    app.add_exception_handler(RequestValidationError, misformed)
    app.add_exception_handler(StarletteHTTPException, of_http)
    for kind in (UserError, TimeoutError):
        app.add_exception_handler(kind, refused)
