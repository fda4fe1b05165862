"""Serves the page of a play on 127.0.0.1, to the person who started it and to nobody else.

The address holds a token, so no other site can guess it; the Host has to be ours, so no other name
can be pointed here; what changes something has to come from the page itself as JSON.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

import yaml
from botocore.exceptions import BotoCoreError, ClientError

from local.page import view
from local.playground import ROOT
from local.slack import NoSuchButtonError
from oncall.errors import BadInput, NotFound
from oncall.svg import stylesheet
from oncall.times import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from local.playground import Playground
    from local.stories import Story
    from local.troubles import Troubles
    from local.watch import Glance

LOOPBACK = "127.0.0.1"
_FILES = Path(__file__).parent
_POLL_SECONDS = 10.0
_LAST_LOOK_SECONDS = 3.0
_MOST_BYTES = 4_096
_MOST_DIGITS = 10
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Page:
    """The page; ``with Page(story) as page: page.show(glance)``.

    ``port`` 0 takes any that is free. Raises ``BadInput`` where it cannot listen.
    """

    def __init__(self, story: Story, port: int = 0) -> None:
        self._story = story
        self._port = port
        self._token = secrets.token_urlsafe(16)
        self._machine = yaml.safe_load(
            (ROOT / "statemachines" / f"{story.runbook}.asl.yaml").read_text("utf-8")
        )
        self._changed = threading.Condition()
        self._version = 1
        self._fetched = 0
        self._closing = False
        self._ended = ""
        self._gone = False
        self._glance: Glance | None = None
        self._levels = view.Levels()
        self._ground: Playground | None = None
        self._troubles: Troubles | None = None
        self._shown_troubles: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Where it is, with the token."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}/{self._token}/"

    def __enter__(self) -> Self:
        """Begin to serve."""
        try:
            self._server = _Server(self, self._port)
        except OSError as error:
            raise BadInput(
                f"--port: {self._port} cannot be listened on ({error}). Leave it out, and any "
                "that is free is taken."
            ) from error
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop serving."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def attach(self, ground: Playground, troubles: Troubles) -> None:
        """Show this playground from now on, and let people make these troubles."""
        with self._changed:
            self._ground, self._troubles = ground, troubles
        self._bump()

    def show(self, glance: Glance) -> None:
        """Show what there is to see now; the last run stays to be seen until there is another."""
        self._look_at_troubles()
        with self._changed:
            before = self._glance
            if before and not glance.entered:
                glance = replace(
                    glance,
                    entered=before.entered,
                    state=before.state,
                    over=before.over,
                    incident=before.incident,
                    alarm=glance.alarm or before.alarm,
                    rows=glance.rows or before.rows,
                )
            self._glance = glance
            self._levels.add(glance, utc_now())
        if glance.now == self._story.trouble.words:
            self.mark(glance.now)
        self._bump()

    def mark(self, label: str) -> None:
        """Mark in the plots what is done to the pilot now."""
        with self._changed:
            self._levels.troubles.append(view.trouble_mark(label, utc_now()))

    def end(self, said: str) -> None:
        """Say that the story has ended; everything goes on."""
        with self._changed:
            self._ended = said
        self._bump()

    def detach(self) -> None:
        """Let those who look see the end: the playground is about to be gone."""
        with self._changed:
            self._gone = True
            self._ended = "The play has ended and its AWS is gone. This page stays as it was."
            self._version += 1
            self._changed.notify_all()
            if self._fetched:
                self._changed.wait_for(
                    lambda: self._fetched >= self._version, timeout=_LAST_LOOK_SECONDS
                )

    def _look_at_troubles(self) -> None:
        # In the play's own time and never when a browser asks, for whom AWS may just be stopping.
        if self._troubles and not self._gone:
            self._shown_troubles = self._troubles.shown()

    def _bump(self) -> None:
        with self._changed:
            self._version += 1
            self._changed.notify_all()

    # What the server asks

    def is_ours(self, token: str) -> bool:
        """Whether an address holds the page's token."""
        return hmac.compare_digest(token.encode(), self._token.encode())

    def state(self, after: int, width: int) -> dict[str, Any]:
        """Return what is to be seen, once it is newer than version ``after`` or a while is over.

        ``width`` is that of the plots in px.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._version > after or self._closing, timeout=_POLL_SECONDS
            )
            state = self._state(width)
            self._fetched = self._version
            self._changed.notify_all()
        return state

    def _state(self, width: int) -> dict[str, Any]:
        glance, now = self._glance, utc_now()
        ended = self._ended
        state: dict[str, Any] = {
            "version": self._version,
            "status": view.status(glance, ended),
            "ended": ended,
            "gone": self._gone,
            "facts": view.as_shown(view.facts(glance)),
            "machine": view.machine(self._machine, glance, self._story.runbook),
            "plots": view.plots(self._levels, glance, now, width),
            "messages": [],
            "pagerduty": "",
            "troubles": [],
            "people": {},
        }
        if self._ground and self._troubles:
            state["messages"] = view.messages(self._ground.slack)
            state["pagerduty"] = view.pagerduty(self._ground.pagerduty)
            state["people"] = view.people(self._ground.slack)
            state["troubles"] = [] if self._gone else self._shown_troubles
        return state

    def click(self, given: Mapping[str, str]) -> dict[str, Any]:
        """Press a button in Slack as a person: a signed request to the real function URL.

        Raises ``NotFound`` when the message does not show the button any more.
        """
        ground = self._attached()
        slack = ground.slack
        found = next((m for m in list(slack.messages) if m.ts == given["ts"]), None)
        if found is None or given["user"] not in slack.users:
            raise NotFound("There is no such message or person.")
        try:
            click = slack.click(
                found, given["action"], url=ground.outputs["DecisionUrl"], user=given["user"]
            )
        except NoSuchButtonError as error:
            raise NotFound(str(error)) from error
        self._bump()
        said = "" if click.acknowledged else f"The button was not answered: {click.status}."
        return {"said": said}

    def trouble(self, given: Mapping[str, str]) -> dict[str, Any]:
        """Make a trouble or undo it. Raises ``NotFound`` or ``BadInput``."""
        self._attached()
        assert self._troubles is not None  # noqa: S101 -- set with the playground
        said = self._troubles.do(given["id"])
        self.mark(said.split(":")[0])
        self._look_at_troubles()
        self._bump()
        return {"said": said}

    def _attached(self) -> Playground:
        if self._ground is None or self._gone:
            raise BadInput("Nothing runs here; wait until it has started.")
        return self._ground

    def file(self, name: str) -> tuple[str, str] | None:
        """Return a file's type and text, ``None`` where there is none."""
        match name:
            case "":
                text = (_FILES / "page.html").read_text("utf-8")
                return "text/html", text.replace("{title}", view.escaped(self._story.title))
            case "page.css":
                return "text/css", (_FILES / name).read_text("utf-8") + stylesheet()
            case "page.js":
                return "text/javascript", (_FILES / name).read_text("utf-8")
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = False

    def __init__(self, page: Page, port: int) -> None:
        super().__init__((LOOPBACK, port), _Handler)
        self.page = page
        self.hosts = {f"{name}:{self.server_address[1]}" for name in (LOOPBACK, "localhost")}


class _RefusedError(Exception):
    """Ends a request with a status and a sentence."""

    def __init__(self, status: HTTPStatus, said: str) -> None:
        super().__init__(said)
        self.status = status


def _number(query: Mapping[str, list[str]], name: str, usual: int) -> int:
    given = query.get(name, [str(usual)])[0]
    if not (given.isascii() and given.isdecimal() and len(given) < _MOST_DIGITS):
        raise _RefusedError(
            HTTPStatus.BAD_REQUEST, f"{name}: give a number, for example {name}={usual}."
        )
    return int(given)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Serve a file or the state."""
        self._answered(self._get)

    def do_POST(self) -> None:
        """Do what a button of the page does."""
        self._answered(self._post)

    def _answered(self, work: Callable[[], tuple[str, str]]) -> None:
        try:
            kind, text = work()
            self._send(HTTPStatus.OK, kind, text)
        except _RefusedError as refusal:
            self.close_connection = True  # its body may not have been read
            self._send(refusal.status, "application/json", json.dumps({"said": str(refusal)}))
        except (NotFound, BadInput, ClientError, BotoCoreError) as error:
            self._send(HTTPStatus.CONFLICT, "application/json", json.dumps({"said": str(error)}))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # whoever looked has gone

    def _get(self) -> tuple[str, str]:
        name, query = self._path()
        if name == "state":
            after, width = _number(query, "after", 0), _number(query, "width", 620)
            return "application/json", json.dumps(self.server.page.state(after, width))
        found = self.server.page.file(name)
        if found is None:
            raise _RefusedError(HTTPStatus.NOT_FOUND, "There is nothing here.")
        return found

    def _post(self) -> tuple[str, str]:
        name, _ = self._path()
        if self.headers.get("Origin", "").removeprefix("http://") not in self.server.hosts:
            raise _RefusedError(HTTPStatus.FORBIDDEN, "Only the page itself may do that.")
        wanted = {"click": {"ts", "action", "user"}, "trouble": {"id"}}.get(name)
        if wanted is None:
            raise _RefusedError(HTTPStatus.NOT_FOUND, "There is nothing here.")
        given = self._body()
        if set(given) != wanted or not all(isinstance(value, str) for value in given.values()):
            raise _RefusedError(
                HTTPStatus.BAD_REQUEST, f"Give {', '.join(sorted(wanted))}, each as text."
            )
        page = self.server.page
        done = page.click(given) if name == "click" else page.trouble(given)
        return "application/json", json.dumps(done)

    def _path(self) -> tuple[str, dict[str, list[str]]]:
        """Return what is asked for below the token. Raises ``_RefusedError`` for anybody else."""
        if self.headers.get("Host", "") not in self.server.hosts:
            raise _RefusedError(HTTPStatus.MISDIRECTED_REQUEST, "This page has another address.")
        parts = urlsplit(self.path)
        _, token, *rest = parts.path.split("/", 2)
        if not self.server.page.is_ours(token) or not rest:
            raise _RefusedError(
                HTTPStatus.NOT_FOUND, "The page's whole address is in the terminal that plays it."
            )
        return rest[0], parse_qs(parts.query)

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        kind = self.headers.get("Content-Type", "")
        if kind != "application/json" or not length.isdecimal() or int(length) > _MOST_BYTES:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "Send a short JSON document.")
        try:
            given = json.loads(self.rfile.read(int(length)))
        except ValueError as error:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "That is not JSON.") from error
        if not isinstance(given, dict):
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "Send a JSON object.")
        return given

    def _send(self, status: HTTPStatus, kind: str, text: str) -> None:
        payload = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(payload)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: object) -> None:
        """Stay quiet: the terminal shows the play."""
