"""Restricts links to public hosts, in whatever notation an address is written.

A name is resolved once and the checked address is connected to, so that a name whose address changes
between check and connection (DNS rebinding) reaches no other host.
"""

from __future__ import annotations

import ipaddress
import re
import socket

from chestxray.serve.errors import RequestProblem

#: Ports of HTTP and HTTPS. Others belong to mail, databases and control panels.
PORTS = (80, 443)
_NAME = re.compile(r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]\Z")
#: Refused although Python counts some of them as global.
_SPECIAL_4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "168.63.129.16/32",  # Azure's own services, seen from inside its machines alone
            "192.0.0.0/24",  # protocol assignments (RFC 6890), and Oracle's metadata service
            "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        ),
    )
)
_UNICAST_6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocol assignments, Teredo among them: an IPv4 address within
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: an IPv4 address within
            "3fff::/20",  # documentation (RFC 9637)
        ),
    )
)


def public_address(host: str, port: int) -> str:
    """Return the address to connect to for `host`, a name or an address from a link.

    Raises:
        RequestProblem: `host` is not a valid name or address, is not found, or one of its addresses is not
            public; the port is not one of `PORTS`.
    """
    if port not in PORTS:
        raise refused(f"A link's port must be one of {', '.join(map(str, PORTS))}.")
    literal = _literal(host)
    if literal is not None:
        return _checked(literal)
    if not _NAME.match(host.lower().removesuffix(".")):
        raise refused("The link's host must be a full name or a plain address.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise RequestProblem(422, "link_not_reached", "The link's host cannot be found.") from error
    addresses = [_checked(str(entry[4][0])) for entry in found]
    if not addresses:
        raise RequestProblem(422, "link_not_reached", "The link's host cannot be found.")
    return addresses[0]


def is_public(address: str) -> bool:
    """Return whether `address`, IPv4 or IPv6 in standard notation, is a public host.

    IPv6 addresses that embed an IPv4 address (mapped, compatible, NAT64, 6to4, Teredo) are refused.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if not found.is_global or found.is_multicast or found.is_reserved:
        return False
    if isinstance(found, ipaddress.IPv4Address):
        return not any(found in network for network in _SPECIAL_4)
    # An address with a scope ("%eth0") is local to a network link.
    return found.scope_id is None and found in _UNICAST_6 and not any(found in network for network in _SPECIAL_6)


def refused(message: str) -> RequestProblem:
    """Return the error of a link that must not be followed."""
    return RequestProblem(422, "link_refused", message)


def _literal(host: str) -> str | None:
    """Return `host` if it is an address in standard notation, else None. ``127.1``, ``0x7f000001`` and
    ``017700000001``, which operating systems accept, are not, and `_NAME` does not match them either.
    """
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _checked(address: str) -> str:
    if not is_public(address):
        raise refused("The link leads to an address that is not public.")
    return address
