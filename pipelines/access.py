"""Who may talk to the workplace: on loopback everybody on this machine, elsewhere who has the token.

Prefect and MLflow are told by their environments, which only this user can read, and never by a command line. Both ask
for it as HTTP's Basic authentication (RFC 7617), so each request carries it as it is: between machines that needs TLS,
which a reverse proxy adds.

Browsers call this machine for any page that a person has open, and a name that its owner points at 127.0.0.1 makes
such a page look like ours (DNS rebinding). So both servers answer to names that they know only, and to no other page's
requests; MLflow can do that itself, Prefect's server gets a guard (`pipelines.guard`).
"""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from muomni.errors import UserError
from muomni.listening import EVERYWHERE, LOCAL, in_address, is_loopback, own_names
from pipelines.place import root

TOKEN = "MUOMNI_TOKEN"  # nosec B105: the variable's name
NAMES, PUBLIC = "MUOMNI_NAMES", "MUOMNI_PUBLIC"  # tell the guard, see `Access.prefect`
USER = "muomni"
SHORTEST = 16  # characters; what is drawn has 32


def token_file() -> Path:
    """Where a token that was drawn is kept."""
    return root() / "token"


def checked(token: str, where: str) -> str:
    """A token that can be used.

    Raises:
        UserError: if it is short, or has characters that do not survive every way it goes.
    """
    if len(token) < SHORTEST or not token.isascii() or any(c.isspace() or not c.isprintable() for c in token):
        raise UserError(f"{where}: a token has {SHORTEST} or more ASCII characters without spaces, this has not")
    return token


def known_token() -> str | None:
    """The token that ``MUOMNI_TOKEN`` gives or the state folder keeps; None if there is none.

    Raises:
        UserError: if it cannot be used, or others can read the file.
    """
    if TOKEN in os.environ:
        return checked(os.environ[TOKEN], TOKEN)
    path = token_file()
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with os.fdopen(handle, encoding="utf-8", errors="replace") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise UserError(f"{path}: others can read the token; remove the file, and another is drawn")
        return checked(file.read(1000).strip(), f"{path}: remove the file, and another token is drawn")


def private_file(path: Path, text: str) -> None:
    """Make a file that nobody else reads, before anything is in it; raises `FileExistsError` if it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


@dataclass(frozen=True)
class Access:
    """Who may talk to a workplace.

    Attributes:
        host: where it listens.
        public: further names that lead to it, such as a reverse proxy's.
        token: what who talks to it must show; None: nothing.
        drawn: whether it was drawn now.
    """

    host: str
    public: Sequence[str] = ()
    token: str | None = field(default=None, repr=False)
    drawn: bool = False

    @classmethod
    def of(cls, host: str, public: Sequence[str] = ()) -> "Access":
        """What a host asks for: a token if others reach it, or if ``MUOMNI_TOKEN`` gives one.

        Raises:
            UserError: if there is a token that cannot be used.
        """
        if is_loopback(host) and TOKEN not in os.environ:
            return cls(host, public)
        if (token := known_token()) is not None:
            return cls(host, public, token)
        token = secrets.token_urlsafe(24)
        private_file(token_file(), f"{token}\n")
        return cls(host, public, token, drawn=True)

    @classmethod
    def known(cls, guarded: bool) -> "Access":
        """What a program on this machine has to show that talks to a workplace which is up; raises as `known_token`."""
        return cls("localhost", token=known_token() if guarded else None)

    def tell(self, terminal: bool) -> str | None:
        """The line about the token, with the token itself once: when it was drawn, and only to a terminal."""
        if self.token is None:
            return None
        where = f"as {TOKEN} says" if TOKEN in os.environ else f"in {token_file()}"
        shown = f"{self.token}   (kept {where})" if self.drawn and terminal else where
        return f"User:    {USER}   token: {shown}"

    @property
    def near(self) -> str:
        """The host as addresses have it that programs on this machine use."""
        if self.host in EVERYWHERE:
            return "[::1]" if self.host == "::" else "127.0.0.1"
        return in_address(self.host)

    def names(self) -> list[str]:
        """The names and numbers by which it can be called, as addresses have them."""
        return own_names(self.host, self.public)

    @property
    def pair(self) -> tuple[str, str] | None:
        """User and password of requests to both servers."""
        return None if self.token is None else (USER, self.token)

    def clients(self) -> dict[str, str]:
        """The environment of what talks to Prefect. Runs reach MLflow's database without MLflow's server."""
        return {} if self.token is None else {"PREFECT_API_AUTH_STRING": f"{USER}:{self.token}"}

    def prefect(self) -> dict[str, str]:
        """What Prefect's server must know beyond that."""
        asked = {} if self.token is None else {"PREFECT_SERVER_API_AUTH_STRING": f"{USER}:{self.token}"}
        return asked | {NAMES: ",".join(self.names()), PUBLIC: ",".join(self.public)}

    def mlflow(self, port: int) -> dict[str, str]:
        """What MLflow's server must know: a user database of its own, made anew with this one user, and the names.

        https://mlflow.org/docs/latest/self-hosting/security/basic-http-auth and .../security/network
        """
        names = self.names()
        hosts = [*names, *(f"{name}:{port}" for name in names)]
        # With a port after a * only, for a tunnel has a port of its own: its own list takes all of 10.*, which
        # 10.example.com is, too. Brackets mean something else in these patterns.
        hosts += [f"{name.replace('[', '[[]')}:*" for name in LOCAL]
        origins = [f"{scheme}://{name}" for scheme in ("http", "https") for name in self.public]
        origins += [f"http://{name}:{port}" for name in names if name not in LOCAL]  # which it takes in any case
        allowed = {
            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(hosts),
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
        }
        if self.token is None:
            return allowed
        base, settings = root() / "auth.db", root() / "auth.ini"
        for path in (settings, *root().glob("auth.db*")):
            path.unlink(missing_ok=True)
        private_file(base, "")
        place = str(base).replace("%", "%%")
        # A password costs a hash of many rounds a request, so who showed the right one is known for a minute.
        lines = ["[mlflow]", "default_permission = NO_PERMISSIONS", f"database_uri = sqlite:///{place}"]
        private_file(settings, "\n".join([*lines, "auth_cache_ttl_seconds = 60", ""]))
        return allowed | {
            "MLFLOW_AUTH_CONFIG_PATH": str(settings),
            "MLFLOW_AUTH_ADMIN_USERNAME": USER,
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.token,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
            "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
        }
