"""Which URLs may be fetched: https to public addresses, without a password.

A recipe, an archive or a redirect may come from a stranger. What a host name resolves to is looked
up once, checked, and then connected to, so that a second answer of the name server changes
nothing (DNS rebinding). `private` lifts both rules, for a URL that its user calls private.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import TYPE_CHECKING

from mt.errors import DownloadError

if TYPE_CHECKING:
    from httpx2 import URL

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PORTS = {"http": 80, "https": 443}


class UnknownHostError(Exception):
    """A name server has no address for a host, perhaps not now."""


def parse_url(url: str, private: bool, where: str) -> URL:
    """Parse a URL that may be fetched.

    Raises:
        DownloadError: none; of another scheme; with a user or password.
    """
    import httpx2

    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise DownloadError("URL", where, f"not a URL ({error})", "see its spelling") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        what, advice = "only https URLs are fetched", "fetch it yourself, and name the file"
        raise DownloadError("URL-SCHEME", where, what, advice)
    if parsed.scheme == "http" and not private:
        what, advice = "http is not encrypted; only https is fetched", "write https, if it has that"
        raise DownloadError("URL-SCHEME", where, what, advice)
    if parsed.userinfo:
        what = "a user or password in a URL would be shown and recorded"
        raise DownloadError("URL-SECRET", where, what, "leave it out; fetch the file yourself")
    return parsed


def public_addresses(url: URL, private: bool, where: str) -> list[str]:
    """Look up the addresses of the host of a URL, to connect to one of these.

    Raises:
        DownloadError: one of them is of a private network, this machine, or no host at all.
        UnknownHostError: there is none.
    """
    try:
        port = url.port or _PORTS[url.scheme]
        found = socket.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UnknownHostError(f"{url.host}: {error}") from None
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    for address in addresses:
        if not private and not is_public(address):
            what = f"{url.host} is {address}, which is not a public address"
            advice = "set private: true in the source, if this URL is meant to be of your network"
            raise DownloadError("URL-PRIVATE", where, what, advice)
    return addresses


def is_public(address: str) -> bool:
    """Whether an IP address is of the public internet, and so is one that is embedded in it."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def through_mirror(url: str) -> tuple[str, bool]:
    """Return the URL to fetch instead, with `$MT_MIRROR`, and whether it may be private."""
    mirror = os.environ.get("MT_MIRROR", "").rstrip("/")
    scheme, _, rest = url.partition("://")
    if not mirror or scheme != "https":
        return url, False
    return f"{mirror}/{rest}", True
