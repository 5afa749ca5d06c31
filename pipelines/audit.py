"""What comes from others, checked by known tools: ``python -m pipelines.audit [--licences]``, a part of `make check`.

- ``requirements.lock``: one version and hashes for each package, no addresses, and what pyproject.toml asks for
- the environment: it has the locked versions, and they fit each other (``pip check``)
- known vulnerabilities of the locked packages (pip-audit, https://osv.dev); skipped with a line where that cannot be
  reached, for the rest must work without a network
- bandit: code that is often unsafe

What is known and does no harm here stands in pyproject.toml with the reason: ``tool.muomni.audit.allowed`` for
vulnerabilities, ``tool.bandit`` and comments beside the code for the rest.
"""

import argparse
import json
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK, PROJECT = "requirements.lock", "pyproject.toml"
ADVISORIES = "https://api.osv.dev/v1/query"
REACH, WHOLE = 4.0, 180.0  # seconds to reach the service, and for all questions
ENTRY = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^\s;]+)(?:\s*;\s*(?P<marker>.*))?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


Locked = dict[str, tuple[str, str]]  # by canonical name: version and marker, which may be empty


def read_lock(text: str) -> tuple[Locked, list[str]]:
    """The packages of a lock file, and what is wrong with it."""
    locked, faults = dict[str, tuple[str, str]](), list[str]()
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        head, *hashes = re.split(r"\s+(?=--hash)", line.strip())
        found = ENTRY.fullmatch(head.strip())
        if found is None:
            faults.append(f"{LOCK}: not 'name==version' with hashes: {head[:80]}")
            continue
        name = canonicalize_name(found["name"])
        if not hashes or not all(HASH.fullmatch(word.strip()) for word in hashes):
            faults.append(f"{LOCK}: {name}: no sha256 of it")
        if name in locked:
            faults.append(f"{LOCK}: {name}: there twice")
        locked[name] = (found["version"], found["marker"] or "")
    return locked, faults


def wanted(project: Mapping[str, Any]) -> list[Requirement]:
    """What pyproject.toml asks for, in all its groups."""
    groups = project["project"].get("optional-dependencies", {}).values()
    return [
        Requirement(line) for line in (*project["project"]["dependencies"], *(x for group in groups for x in group))
    ]


def compare(locked: Locked, project: Mapping[str, Any]) -> list[str]:
    """What of pyproject.toml the lock does not give."""
    faults = []
    for need in wanted(project):
        version, _ = locked.get(canonicalize_name(need.name), ("", ""))
        if not version:
            faults.append(f"{LOCK}: {need.name} is missing, which {PROJECT} asks for; run `make lock`")
        elif not need.specifier.contains(version, prereleases=True):
            faults.append(f"{LOCK}: {need.name} {version} is not {need.specifier}; run `make lock`")
    return faults


def differing(locked: Locked) -> list[str]:
    """Where the environment has other versions than the lock, or does not fit together."""
    here: dict[str, str] = {canonicalize_name(d.name): d.version for d in metadata.distributions() if d.name}
    faults = [
        f"the environment has {name} {here.get(name, '(none)')}, {LOCK} {version}; run `make env`"
        for name, (version, marker) in locked.items()
        if here.get(name) != version and name != "pip" and (not marker or Marker(marker).evaluate())
    ]
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    return faults + (done.stdout or done.stderr).splitlines() * bool(done.returncode)


def reachable(address: str, seconds: float = REACH) -> bool:
    """Whether anything answers there, through a proxy if the environment names one."""
    answered = threading.Event()

    def ask() -> None:
        try:
            httpx.get(address, timeout=seconds)
            answered.set()
        except (httpx.HTTPError, httpx.InvalidURL):
            pass

    # In a thread: looking a name up has no time-out.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answered.is_set()


def vulnerable(lock: Path, allowed: Mapping[str, str], say: Callable[[str], None], address: str) -> list[str]:
    """Known vulnerabilities of the locked packages but for the allowed ones; none, and a line, if nobody answers.

    Args:
        lock: the lock file.
        allowed: vulnerabilities by identifier or alias (``GHSA-...``, ``CVE-...``, ``PYSEC-...``) with the reason.
        say: takes the line.
        address: of the service's queries (https://google.github.io/osv.dev/post-v1-query/).
    """
    if not reachable(address):
        say(f"skipped: known vulnerabilities: {address} cannot be reached")
        return []
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--no-deps", "--disable-pip"]
    command += ["--vulnerability-service", "osv", "--osv-url", address, "--progress-spinner", "off", "--format", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WHOLE, check=False)
        found = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        say(f"skipped: known vulnerabilities: {address} took more than {WHOLE:.0f} s")
        return []
    except (ValueError, KeyError):
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        say(f"skipped: known vulnerabilities: pip-audit failed: {said[-1][:200]}")
        return []
    say(f"known vulnerabilities: {len(found)} packages looked up")
    faults, used = [], set[str]()
    for package in found:
        for known in package.get("vulns", []):
            names = {known["id"], *known.get("aliases", [])}
            used |= names & set(allowed)
            if not names & set(allowed):
                mended = ", ".join(known.get("fix_versions", [])) or "no version"
                faults.append(f"{package['name']} {package['version']}: {known['id']}, mended in {mended}")
    for name in sorted(set(allowed) - used):
        say(f"note: {PROJECT}: tool.muomni.audit.allowed: {name} is not found any more; remove it")
    return faults


def unsafe(root: Path) -> list[str]:
    """What bandit finds in the code."""
    command = [sys.executable, "-m", "bandit", "--quiet", "--configfile", PROJECT, "--format", "custom"]
    command += ["--msg-template", "{relpath}:{line}: {test_id} {msg}", "--recursive", "muomni", "pipelines"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return []
    return done.stdout.splitlines() or [f"bandit failed: {done.stderr.strip()[-200:]}"]


def licences(locked: Locked) -> list[str]:
    """A line a package that is here: name, version, licence."""
    lines = []
    for name, (version, _) in sorted(locked.items()):
        try:
            about = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue
        classified = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier", []) if "License ::" in line]
        named = [text for key in ("License-Expression", "License") for text in about.get_all(key, []) if text.strip()]
        text = (named[:1] if "License-Expression" in about else classified or named or ["unknown"])[0]
        lines.append(f"{name} {version}: {text.strip().splitlines()[0][:80]}")
    return lines


def main() -> None:
    """Check everything, and exit with 1 if something is wrong."""
    parser = argparse.ArgumentParser(description="Check the locked packages and the code with known tools.")
    parser.add_argument("--licences", action="store_true", help="only list the licences of the locked packages")
    parser.add_argument("--advisories", default=ADVISORIES, metavar="ADDRESS", help="of an OSV service (%(default)s)")
    options = parser.parse_args()
    root = Path(__file__).parents[1]
    locked, faults = read_lock((root / LOCK).read_text(encoding="utf-8"))
    project = tomllib.loads((root / PROJECT).read_text(encoding="utf-8"))
    if options.licences:
        print("\n".join(licences(locked)))
        return
    allowed = project["tool"]["muomni"]["audit"]["allowed"]
    faults += compare(locked, project) + differing(locked)
    faults += vulnerable(root / LOCK, allowed, print, options.advisories) + unsafe(root)
    for fault in faults:
        print(fault)
    print(f"audit: {len(locked)} locked packages, {len(faults)} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
