"""A name server of the embedded Route 53: UDP and TCP on one port of 127.0.0.1.

It serves one account's public zones, as of the last change that has reached it.
"""

import random
import socketserver
import struct
import threading
from collections.abc import Sequence
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from ministack.core.responses import request_scope

from local.aws.route53 import answers, checkers, zones

_LARGEST_UDP = 512  # without EDNS, RFC 1035


class NameServer:
    """One name server. `silent` drops every query; with `lag_seconds` changes arrive later."""

    def __init__(self, account: str, name: str) -> None:
        self.name = name
        self.silent = False
        self.lag_seconds = 0.0
        self._account = account
        self._tcp, self._udp = _servers(self)
        self.address: tuple[str, int] = ("127.0.0.1", self._tcp.server_address[1])
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True, name=name)
            for server in (self._tcp, self._udp)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop serving and free the port."""
        for server in (self._tcp, self._udp):
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()

    def answer(self, wire: bytes, *, over_udp: bool) -> bytes | None:
        """Answer a message; None where nothing is to be sent."""
        if self.silent:
            return None
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        with request_scope(self._account, "us-east-1"):
            response = respond(query, self.lag_seconds)
        if not over_udp:
            return response.to_wire(max_size=65535)
        size = query.payload if query.edns >= 0 else _LARGEST_UDP
        try:
            return response.to_wire(max_size=size)
        except dns.exception.TooBig:
            short = dns.message.make_response(query)
            short.flags |= dns.flags.AA | dns.flags.TC
            return short.to_wire()


def respond(query: dns.message.Message, lag_seconds: float) -> dns.message.Message:
    """Answer a query in the current account: REFUSED for names in none of its zones."""
    response = dns.message.make_response(query)
    if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
        response.set_rcode(dns.rcode.NOTIMP)
        return response
    question = query.question[0]
    name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
    zone = zones.public_zone_of(name)
    if zone is None:
        response.set_rcode(dns.rcode.REFUSED)
        return response
    served = answers.Zone(zone["name"], zone["id"], zones.records(zone["id"], lag_seconds))
    found = answers.answer(served, name, kind, checkers.is_healthy, pick)
    response.flags |= dns.flags.AA
    response.set_rcode(dns.rcode.from_text(found.code))
    response.answer = [_rrset(records) for records in found.records]
    response.authority = [_rrset(found.authority)] if found.authority else []
    return response


def pick(weights: Sequence[int]) -> int:
    """Pick an index by weight, at random."""
    return random.choices(range(len(weights)), weights)[0]  # noqa: S311 -- balances load


def _rrset(records: answers.Rrset) -> dns.rrset.RRset:
    values: Any = records.values
    return dns.rrset.from_text_list(records.name, records.ttl, "IN", records.type, values)


def _servers(
    server: NameServer,
) -> tuple[socketserver.ThreadingTCPServer, socketserver.ThreadingUDPServer]:
    """Bind TCP to a free port and UDP to the same; another port when UDP's is taken."""

    class Udp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            wire, udp = self.request
            if answer := server.answer(wire, over_udp=True):
                udp.sendto(answer, self.client_address)

    class Tcp(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while len(prefix := self.rfile.read(2)) == 2:  # noqa: PLR2004 -- RFC 1035, 4.2.2
                wire = self.rfile.read(struct.unpack("!H", prefix)[0])
                if (answer := server.answer(wire, over_udp=False)) is None:
                    return
                self.wfile.write(struct.pack("!H", len(answer)) + answer)

    for attempt in range(10):
        tcp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tcp)
        tcp.daemon_threads = True
        try:
            udp = socketserver.ThreadingUDPServer(("127.0.0.1", tcp.server_address[1]), Udp)
        except OSError:
            tcp.server_close()
            if attempt == 9:  # noqa: PLR2004 -- the last
                raise
        else:
            udp.daemon_threads = True
            return tcp, udp
    raise AssertionError
