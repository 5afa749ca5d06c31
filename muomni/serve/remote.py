"""Pictures from elsewhere, where the server's owner allowed it: public addresses only, bounded in time and size.

A request must not make the server ask machines that its sender cannot reach. So names are looked up here, every number
behind them must be public, and the connection goes to the number that was checked; each redirect is checked anew.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

from muomni.serve.errors import ApiError, invalid
from muomni.serve.inputs import over_limit
from muomni.serve.settings import Limits

BLOCK = 65_536
# Numbers that carry an IPv4 one, which a gateway would go on to: NAT64 and 6to4.
CARRIERS = [ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16")]
Allowed = Callable[[str], bool]


def is_public(number: str) -> bool:
    """Whether an IP address belongs to the public internet."""
    address = ipaddress.ip_address(number.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        if any(address in carrier for carrier in CARRIERS):
            return False
    return address.is_global and not address.is_multicast


def fetch(url: str, limits: Limits, param: str, allowed: Allowed = is_public) -> bytes:
    """The bytes at an address.

    Args:
        url: ``http`` or ``https``.
        limits: bytes, seconds and redirects at most.
        param: the field of the request.
        allowed: which numbers may be asked.

    Raises:
        ApiError: if it cannot be fetched so.
    """
    end = time.monotonic() + limits.remote_s
    for _ in range(limits.redirects + 1):
        try:
            found = ask(url, limits, param, allowed, end)
        except (OSError, http.client.HTTPException, ValueError) as error:
            late = time.monotonic() >= end or isinstance(error, TimeoutError)
            why = f"took more than {limits.remote_s:g} s (--remote-seconds)" if late else "could not be fetched"
            raise invalid(f"{param}: the address {why}", param, "remote_failed") from None
        if isinstance(found, bytes):
            return found
        url = found
    raise invalid(f"{param}: more than {limits.redirects} redirects (--remote-redirects)", param, "remote_failed")


def ask(url: str, limits: Limits, param: str, allowed: Allowed, end: float) -> bytes | str:
    """One request: the bytes, or where they are instead.

    Args:
        url: ``http`` or ``https``.
        limits: bytes at most.
        param: the field of the request, for messages.
        allowed: which numbers may be asked.
        end: when it must be over, by `time.monotonic`.

    Raises:
        ApiError: if the address may not be asked, answers with an error, or has too much.
        OSError: if the network fails; `TimeoutError` if it takes too long.
        http.client.HTTPException: if the answer is no HTTP.
        ValueError: if the address is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise invalid(f"{param}: expected http://host/... or https://host/...", param)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connection = connect(parts.scheme, parts.hostname, port, param, allowed, end)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"Accept": "image/*", "User-Agent": "muomni"})
        answer = connection.getresponse()
        if answer.status in (301, 302, 303, 307, 308):
            return urljoin(url, answer.headers.get("Location", ""))
        if answer.status != 200:
            raise invalid(f"{param}: the address answers with status {answer.status}", param, "remote_failed")
        data = bytearray()
        while block := answer.read1(BLOCK):
            data += block
            if len(data) > limits.picture:
                raise over_limit(f"{param}: more than {limits.picture:,} bytes (--picture-bytes)", param)
            connection.sock.settimeout(left(end))
        return bytes(data)
    finally:
        connection.close()


def left(end: float) -> float:
    """Seconds until then; raises `TimeoutError` if there are none."""
    seconds = end - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def connect(scheme: str, host: str, port: int, param: str, allowed: Allowed, end: float) -> http.client.HTTPConnection:
    """A connection to a number behind a name, all of whose numbers are allowed.

    Args:
        scheme: ``http`` or ``https``.
        host: name or number.
        port: its port.
        param: the field of the request, for messages.
        allowed: which numbers may be asked.
        end: when it must be open, by `time.monotonic`.

    Raises:
        ApiError: 400 if one of them is not allowed.
        OSError: if the name is not known, or the network fails; `TimeoutError` if it takes too long.
    """
    numbers = {str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    if not all(allowed(number) for number in numbers):
        raise ApiError(400, f"{param}: the address is not a public one", param, "remote_refused")
    raw = socket.create_connection((sorted(numbers)[0], port), timeout=left(end))
    connection = http.client.HTTPConnection(host, port)
    try:
        raw.settimeout(left(end))
        if scheme == "https":
            raw = ssl.create_default_context().wrap_socket(raw, server_hostname=host)
    except BaseException:
        raw.close()
        raise
    connection.sock = raw
    return connection
