"""The files of the server's page, as they are served."""

from fastapi import FastAPI
from fastapi.testclient import TestClient

from muomni.serve.page import FOLDER, add_page


def test_files_have_types_a_policy_and_tags() -> None:
    app = FastAPI()
    add_page(app)
    client = TestClient(app)
    for path in FOLDER.iterdir():
        address = "/" if path.name == "index.html" else f"/page/{path.name}"
        answer = client.get(address)
        assert answer.content == path.read_bytes()
        kinds = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
        assert answer.headers["content-type"].split(";")[0] == kinds[path.suffix]
        assert answer.headers["cache-control"] == "no-cache"
        rules = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
        assert rules["default-src"] == "'none'" and rules["script-src"] == "'self'" == rules["style-src"]
        again = client.get(address, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304 and not again.content
        assert client.head(address).headers["etag"] == answer.headers["etag"]
    assert not {"/", "/page/main.js"} & set(app.openapi()["paths"])
