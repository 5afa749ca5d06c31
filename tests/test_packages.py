"""Archives of the larger corpus: brought by npm or from a folder, read only if they are the right bytes."""

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import small_packages

from muomni.data.packages import PACKAGES, read_members, sha512_of, whole
from muomni.errors import UserError
from pipelines.fetch_packages import fetch


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small_packages.use(tmp_path / "packages", monkeypatch)
    return tmp_path / "packages"


def test_members_are_read_by_name_and_below_a_folder(folder: Path) -> None:
    assert list(read_members("emojibase", ("en/data.json",))) == ["en/data.json"]
    found = read_members("shakespeare", below="shksprdata/texts")
    assert sorted(found) == list(found) and found["shksprdata/texts/lear_gut.txt"].startswith(b"Nothing.")
    with pytest.raises(UserError, match="holds no nothing.json"):
        read_members("noto", ("nothing.json",))


def test_a_missing_or_changed_archive_is_named_with_what_to_do(folder: Path) -> None:
    path = folder / PACKAGES["noto"].file
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match=r"noto.*other SHA-512.*remove it and run"):
        read_members("noto", ("icons.json",))
    path.unlink()
    with pytest.raises(UserError, match="no such file.*python -m pipelines.fetch_packages") as caught:
        read_members("noto", ("icons.json",))
    assert "\n" not in str(caught.value)


def test_archives_come_from_a_folder_once_and_only_if_they_are_right(folder: Path, tmp_path: Path) -> None:
    wanted = list(PACKAGES.values())
    assert fetch(wanted, tmp_path / "to", folder) == [package.file for package in wanted]
    assert all(whole(package, tmp_path / "to") for package in wanted)
    assert fetch(wanted, tmp_path / "to", tmp_path / "nowhere") == [], "what is there is left"
    (folder / wanted[0].file).write_bytes(b"something else")
    with pytest.raises(UserError, match="other SHA-512"):
        fetch(wanted, tmp_path / "again", folder)
    assert not list((tmp_path / "again").glob("*"))
    with pytest.raises(UserError, match=f"holds no {wanted[0].file}"):
        fetch(wanted, tmp_path / "again", tmp_path)


def test_without_npm_it_says_what_to_do(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="npm is not on PATH.*--from FOLDER"):
        fetch([PACKAGES["noto"]], tmp_path / "to")


@pytest.fixture
def registry(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A registry on this machine that npm asks, with one package."""
    package, served = PACKAGES["noto"], tmp_path / "served"
    served.mkdir()
    shutil.copy(folder / package.file, served / "noto.tgz")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Nothing."""

        def translate_path(self, path: str) -> str:
            """npm escapes the mark between scope and name."""
            return super().translate_path("/about.json" if "%2f" in path.lower() else path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    address = f"http://127.0.0.1:{server.server_port}"
    dist = {"tarball": f"{address}/noto.tgz", "integrity": f"sha512-{package.sha512}"}
    about = {"name": package.name, "version": package.version, "dist": dist}
    packument = {"name": package.name, "dist-tags": {"latest": package.version}, "versions": {package.version: about}}
    (served / "about.json").write_text(json.dumps(packument))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("npm_config_registry", address)
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    yield address
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_npm_brings_an_archive_from_its_own_registry(registry: str, tmp_path: Path) -> None:
    package = PACKAGES["noto"]
    assert fetch([package], tmp_path / "to") == [package.file]
    assert sha512_of((tmp_path / "to" / package.file).read_bytes()) == package.sha512
    (tmp_path / "served/noto.tgz").write_bytes(b"another")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(UserError, match="npm did not bring @iconify-json/noto 1.2.9") as caught:
        fetch([package], tmp_path / "again")
    assert "\n" not in str(caught.value)
