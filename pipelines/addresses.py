"""Addresses as people may see them: without the user and the password that they may hold."""

import re
from urllib.parse import unquote

# A password may hold an unescaped slash or @. What could be one goes: a name that is missing from a message is better
# than a password in it.
USERINFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)(?:[^\s/?#]*@|[^\s/?#@]+:\S*@)+")


def without_userinfo(address: str) -> str:
    """An address, or any text with addresses in it, without users and passwords.

    ``http://user:password@host/path`` becomes ``http://host/path``. A path, as in ``sqlite:////home/a@b/db``, stays.
    """
    return USERINFO.sub(r"\1", address)


def userinfo(address: str) -> tuple[str, str]:
    """The user and the password that `without_userinfo` leaves out of an address."""
    rest = without_userinfo(address).partition("://")[2]
    user, _, password = address.partition("://")[2].removesuffix(rest).removesuffix("@").partition(":")
    return unquote(user), unquote(password)
