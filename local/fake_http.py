"""An HTTP server on 127.0.0.1 that stands in for a service and fails on demand.

The fake Slack and the fake PagerDuty are built on it: a fake says how its service answers a
request, this module carries the bytes and imitates the ways in which a service is out of reach.
"""

from __future__ import annotations

import json
import math
import socket
import threading
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LOOPBACK = "127.0.0.1"
_STOP_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Request:
    """One request as it arrived. `path` has no query string; header names are lower case."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """One answer: `body` is sent as JSON unless it is a string."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


class RateLimit:
    """At most `count` calls in any `seconds`, counted for each key apart."""

    def __init__(self, count: int, seconds: float, clock: Callable[[], float]) -> None:
        self._count = count
        self._seconds = seconds
        self._clock = clock
        self._calls: dict[str, deque[float]] = defaultdict(deque)

    def wait(self, key: str) -> int | None:
        """Count a call. None when it fits, else whole seconds to wait (a Retry-After value)."""
        now = self._clock()
        calls = self._calls[key]
        while calls and calls[0] <= now - self._seconds:
            calls.popleft()
        if len(calls) < self._count:
            calls.append(now)
            return None
        return max(1, math.ceil(calls[0] + self._seconds - now))


class FakeService(ABC):
    """A context manager that serves while it is entered.

    Failure modes take effect at once and can be combined; `up()` ends them all:
    `down()`, `slow(seconds)`, `rate_limited(requests)` and `error(code)`.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.requests: list[Request] = []
        """Every request that arrived, refused ones too: what a sender really did."""
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._reserved: socket.socket | None = None
        self._port = 0
        self._delay = 0.0
        self._refusals = 0
        self._retry_after = 1
        self._error: tuple[str, int | None] | None = None

    @abstractmethod
    def answer(self, request: Request) -> Answer:
        """Do what the service would do. Called with the lock held."""

    @abstractmethod
    def too_many_requests(self, retry_after: int) -> Answer:
        """Answer as the service does when it is asked too often."""

    @abstractmethod
    def failure(self, code: str, status: int | None) -> Answer:
        """Answer as the service does when it fails."""

    @property
    def origin(self) -> str:
        """Scheme, host and port: `http://127.0.0.1:<port>`."""
        return f"http://{_LOOPBACK}:{self._port}"

    @property
    def is_up(self) -> bool:
        """Whether it takes connections."""
        return self._server is not None

    def __enter__(self) -> Self:
        self._serve()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._stop_serving()
        if self._reserved is not None:
            self._reserved.close()

    def down(self, *, status: int | None = None) -> None:
        """Refuse connections; with `status` (503), accept them and answer that to everything."""
        if status is None:
            self._stop_serving()
            # Bound but not listening: connections are refused and nobody else gets the port.
            if self._reserved is None:
                self._reserved = _loopback_socket(self._port)
        else:
            self._error = ("service_unavailable", status)

    def slow(self, seconds: float) -> None:
        """Answer late. The work is done at once: a caller that gives up and retries does it twice.

        Slack says so of its own errors: "some aspect of the operation" may have succeeded
        (https://docs.slack.dev/reference/methods/chat.postMessage, fatal_error).
        """
        self._delay = seconds

    def rate_limited(self, requests: int, *, retry_after: int = 1) -> None:
        """Answer the next `requests` requests with 429 and Retry-After in seconds."""
        with self._lock:
            self._refusals = requests
            self._retry_after = retry_after

    def error(self, code: str, *, status: int | None = None) -> None:
        """Answer everything with this error until `up()`; `status` defaults to the service's."""
        self._error = (code, status)

    def up(self) -> None:
        """End every failure mode. Nothing that was stored is lost."""
        with self._lock:
            self._delay = 0.0
            self._refusals = 0
            self._error = None
        if self._server is None:
            self._serve()

    def _serve(self) -> None:
        server = _Server(self)
        if self._reserved is None:
            server.server_bind()
            self._port = server.server_address[1]
        else:
            server.socket.close()
            server.socket, self._reserved = self._reserved, None
        server.server_activate()
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, args=(_STOP_POLL_SECONDS,), daemon=True
        )
        self._thread.start()

    def _stop_serving(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None

    def _respond(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            if self._refusals:
                self._refusals -= 1
                return self.too_many_requests(self._retry_after)
            if self._error is not None:
                return self.failure(*self._error)
            answer = self.answer(request)
            delay = self._delay
        if delay:
            self._closing.wait(delay)
        return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, service: FakeService) -> None:
        super().__init__((_LOOPBACK, 0), _Handler, bind_and_activate=False)
        self.service = service


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.0, so that no connection outlives its answer: `down()` must refuse the next one."""

    server: _Server

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        request = Request(
            method=self.command,
            path=parts.path,
            query=tuple(parse_qsl(parts.query)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
        )
        answer = self.server.service._respond(request)  # noqa: SLF001 -- the two are one server
        text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        kind = "text/plain" if isinstance(answer.body, str) else "application/json"
        payload = text.encode()
        try:
            self.send_response(answer.status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(payload)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)
        except (BrokenPipeError, ConnectionResetError):
            # The caller gave up waiting: that is what `slow` is for.
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 -- the names http.server looks up

    def log_message(self, *_: object) -> None:
        """Stay quiet; `requests` keeps what arrived."""


def _loopback_socket(port: int) -> socket.socket:
    reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind((_LOOPBACK, port))
    return reserved
