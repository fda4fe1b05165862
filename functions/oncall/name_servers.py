"""Ask a zone's authoritative name servers, each by itself: what new clients are told.

It needs no control plane (``TestDNSAnswer`` does, and asks no server).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import dns.exception
import dns.inet
import dns.message
import dns.query
import dns.rdatatype
import dns.resolver

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECONDS = 2.0
_PORT = 53

type Address = tuple[str, int]


def of_zone(zone: str) -> dict[str, Address]:
    """Return the addresses of a zone's name servers by name, as its NS records say.

    Empty where no resolver tells; a server whose name has no address is left out.
    """
    found: dict[str, Address] = {}
    for name in sorted(_texts(zone, "NS")):
        addresses = resolve(name)
        if addresses:
            found[name] = (min(addresses), _PORT)
    return found


def resolve(name: str) -> frozenset[str]:
    """Return the IPv4 addresses of a name, itself if it is one; empty where there are none."""
    if dns.inet.is_address(name):
        return frozenset({name})
    return _texts(name, "A")


def _texts(name: str, kind: str) -> frozenset[str]:
    try:
        answer = dns.resolver.resolve(name, kind, lifetime=_SECONDS * 2)
    except dns.exception.DNSException:
        return frozenset()
    return frozenset(_plain(one.to_text()) for one in answer)


def answers(
    servers: Mapping[str, Address], record: str, record_type: str
) -> dict[str, frozenset[str] | None]:
    """Return the values that each server gives for a record; ``None`` where it does not answer."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda where: _ask(where, record, record_type), servers.values())
        return dict(zip(servers, found, strict=True))


def _ask(where: Address, record: str, record_type: str) -> frozenset[str] | None:
    query = dns.message.make_query(record, record_type, flags=0)
    try:
        answer, _ = dns.query.udp_with_fallback(
            query, where[0], timeout=_SECONDS, port=where[1], ignore_unexpected=True
        )
    except (dns.exception.DNSException, OSError):
        return None
    wanted = dns.rdatatype.from_text(record_type)
    return frozenset(
        _plain(one.to_text()) for rrset in answer.answer if rrset.rdtype == wanted for one in rrset
    )


def _plain(value: str) -> str:
    return value.rstrip(".").lower()
