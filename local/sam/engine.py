"""The container engine that SAM uses, and the way from its containers to this host's loopback."""

from __future__ import annotations

import errno
import socket
import subprocess
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from oncall.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# SAM's own choice of an engine, so that what is asked here is what SAM will use. One that does
# not name its bridge's gateway has it at the subnet's first address.
_ASK = """
import ipaddress
from samcli.local.docker.container_client_factory import ContainerClientFactory

network = ContainerClientFactory.create_client().networks.get("bridge")
for config in network.attrs["IPAM"]["Config"] or ():
    print(config.get("Gateway") or ipaddress.ip_network(config["Subnet"])[1])
    break
"""
_NAME = "host.docker.internal"
"""What containers of Docker Desktop, Finch and Podman call this host, its loopback included."""


def gateway(python: Path) -> str:
    """Return the address that the engine's containers reach this host by, ``""`` for none.

    ``python`` is that of SAM's environment. Raises ``BadInput`` where no engine runs.
    """
    asked = subprocess.run(  # noqa: S603 -- fixed arguments
        [python, "-c", _ASK], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        raise BadInput(
            "sam local: no container engine answers, and SAM runs a function in one. Start Docker "
            "or Finch, or run it without one: make local FUNCTION=inspect_queue HOST=1."
        )
    return asked.stdout.strip()


@contextmanager
def reachable(endpoint_url: str, gateway: str) -> Iterator[str]:
    """Make an emulator on 127.0.0.1 reachable from containers; yields its address for them.

    Where the engine's bridge is an interface of this host (Linux), a relay listens on it as long as
    this lasts. Elsewhere (Docker Desktop) the engine forwards to the loopback itself.
    """
    address = urlsplit(endpoint_url)
    if address.hostname not in {"127.0.0.1", "localhost"} or not gateway:
        yield endpoint_url.replace("127.0.0.1", _NAME).replace("localhost", _NAME)
        return
    try:
        server = _Relay((gateway, 0), _Connection)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        yield f"http://{_NAME}:{address.port}"
        return
    server.there = (address.hostname, int(address.port or 80))
    with server:
        Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        try:
            # By number: boto3 would put a bucket's name before a host's.
            yield f"http://{gateway}:{server.server_address[1]}"
        finally:
            server.shutdown()


class _Relay(ThreadingTCPServer):
    daemon_threads = True
    there = ("", 0)


class _Connection(BaseRequestHandler):
    server: _Relay

    def handle(self) -> None:
        with socket.create_connection(self.server.there) as there:
            back = Thread(target=_copy, args=(there, self.request), daemon=True)
            back.start()
            _copy(self.request, there)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # one side has gone: the other is told below
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
