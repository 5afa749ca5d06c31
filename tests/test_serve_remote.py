"""Pictures from elsewhere: public addresses only, within limits of time and size."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from serving import asked, image_part, png, refused, running

from muomni.serve.errors import ApiError
from muomni.serve.remote import fetch, is_public
from muomni.serve.settings import Limits, Settings


def test_only_public_numbers_are_asked() -> None:
    for number in ("1.1.1.1", "93.184.216.34", "2606:4700::1111"):
        assert is_public(number)
    for number in (
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1", "::1", "::",
        "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
    ):  # fmt: skip
        assert not is_public(number), number


class Elsewhere(BaseHTTPRequestHandler):
    """A machine with a picture, and with everything that may go wrong."""

    protocol_version = "HTTP/1.1"
    stalled = threading.Event()

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/to"):
            self.send_response(302)
            self.send_header(
                "Location", {"/to-picture": "/picture", "/to-private": "http://10.0.0.1/"}.get(self.path, self.path)
            )
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path == "/slow":
            self.stalled.wait(20)
        data = {"/picture": png(), "/large": bytes(6000)}.get(self.path, b"")
        self.send_response(200 if data else 404)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    Elsewhere.stalled.set()
    server.shutdown()


def on_this_machine(number: str) -> bool:
    return number == "127.0.0.1"


def test_pictures_are_fetched_within_limits(elsewhere: str) -> None:
    limits = Limits(picture=5000, remote_s=0.5, redirects=2)
    assert fetch(f"{elsewhere}/picture", limits, "url", on_this_machine) == png()
    assert fetch(f"{elsewhere}/to-picture", limits, "url", on_this_machine) == png()
    for path, word in (
        ("/large", "--picture-bytes"), ("/slow", "--remote-seconds"), ("/to-itself", "redirects"),
        ("/to-private", "public"), ("/missing", "404"),
    ):  # fmt: skip
        with pytest.raises(ApiError, match=word):
            fetch(elsewhere + path, limits, "url", on_this_machine)
    for url in ("ftp://127.0.0.1/", "http://", "http://a:b@127.0.0.1/", "http://127.0.0.1:99999/", "http://[", "//a"):
        with pytest.raises(ApiError):
            fetch(url, limits, "url", on_this_machine)


def test_the_server_fetches_only_where_that_is_allowed(checkpoint: Path, elsewhere: str) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"{elsewhere}/picture"}}
    with running(checkpoint, Settings(allow_remote=True)) as place:
        assert refused(place, messages=asked(picture))["code"] == "remote_refused"  # this machine is not public
        place.hall.fetch = lambda url, limits, param: fetch(url, limits, param, on_this_machine)
        here = place.client().chat.completions.create(model="muomni", messages=asked(picture, "What?"))
        there = place.client().chat.completions.create(model="muomni", messages=asked(image_part(png()), "What?"))
        assert here.choices[0].message == there.choices[0].message
