"""The page at ``/``: the files of the folder ``page`` beside this one, as they are."""

import hashlib
from pathlib import Path

from fastapi import FastAPI, Request, Response

FOLDER = Path(__file__).with_name("page")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing from elsewhere, no script or style inside the HTML, nobody frames it. `data:` and `blob:` are the user's own
# pictures and sounds, and those that the server sends within its answers.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cache-Control": "no-cache",  # kept by the browser, but asked for again: an ETag answers with 304
}


def add_page(app: FastAPI) -> None:
    """Serve the page: ``/`` is ``index.html``, everything else is below ``/page/``.

    The files are read once, so that what is served does not change under a running page.
    """
    for path in sorted(FOLDER.iterdir()):
        address = "/" if path.name == "index.html" else f"/page/{path.name}"
        add_file(app, address, path.read_bytes(), TYPES[path.suffix])


def add_file(app: FastAPI, address: str, content: bytes, media_type: str) -> None:
    """Serve bytes at an address."""
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": tag}

    async def file(request: Request) -> Response:
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    app.add_api_route(address, file, methods=["GET", "HEAD"], include_in_schema=False)
