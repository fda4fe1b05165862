"""A PagerDuty that a laptop can run: Events API v2, change events and the incidents' REST API.

It keeps PagerDuty's rules about which event belongs to which incident, and knows whom it woke.
Sources: https://developer.pagerduty.com/docs/events-api-v2-overview,
https://developer.pagerduty.com/docs/send-alert-event,
https://developer.pagerduty.com/docs/send-change-event,
https://developer.pagerduty.com/docs/errors and the REST API reference of the same site.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from jsonschema import Draft202012Validator

from local.fake_http import Answer, FakeService, RateLimit, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from jsonschema import ValidationError

type Status = Literal["triggered", "acknowledged", "resolved"]

MAX_EVENT_BYTES = 512 * 1024

_LINKS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"href": {"type": "string", "minLength": 1}, "text": {"type": "string"}},
        "required": ["href"],
    },
}
_IMAGES = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "src": {"type": "string", "pattern": "^https://"},
            "href": {"type": "string"},
            "alt": {"type": "string"},
        },
        "required": ["src"],
    },
}
_ROUTING_KEY = {"type": "string", "minLength": 32, "maxLength": 32, "pattern": "^[0-9A-Za-z]*$"}
_SUMMARY = {"type": "string", "minLength": 1, "maxLength": 1024}
_OPTIONAL_PAYLOAD = {
    "timestamp": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"},
    "custom_details": {"type": "object"},
}
_EVENT = Draft202012Validator(
    {
        "type": "object",
        "properties": {
            "routing_key": _ROUTING_KEY,
            "event_action": {"enum": ["trigger", "acknowledge", "resolve"]},
            "dedup_key": {"type": "string", "maxLength": 255},
            "links": _LINKS,
            "images": _IMAGES,
            "client": {"type": "string"},
            "client_url": {"type": "string"},
        },
        "required": ["routing_key", "event_action"],
        "if": {"properties": {"event_action": {"const": "trigger"}}},
        "then": {
            "properties": {
                "payload": {
                    "type": "object",
                    "properties": {
                        "summary": _SUMMARY,
                        "source": {"type": "string", "minLength": 1},
                        "severity": {"enum": ["critical", "error", "warning", "info"]},
                        "component": {"type": "string"},
                        "group": {"type": "string"},
                        "class": {"type": "string"},
                        **_OPTIONAL_PAYLOAD,
                    },
                    "required": ["summary", "source", "severity"],
                }
            },
            "required": ["payload"],
        },
        "else": {"required": ["dedup_key"]},
    }
)
_CHANGE = Draft202012Validator(
    {
        "type": "object",
        "properties": {
            "routing_key": _ROUTING_KEY,
            "payload": {
                "type": "object",
                "properties": {
                    "summary": _SUMMARY,
                    "source": {"type": "string"},
                    **_OPTIONAL_PAYLOAD,
                },
                "required": ["summary"],
            },
            "links": _LINKS,
        },
        "required": ["routing_key", "payload"],
    }
)


@dataclass
class Incident:
    """What PagerDuty knows of one problem, from the trigger that opened it on."""

    id: str
    number: int
    routing_key: str
    dedup_key: str
    opened_at: float
    status: Status = "triggered"
    events: list[Mapping[str, Any]] = field(default_factory=list)
    """Each event that was applied to it, in order, as it was sent."""
    notes: list[str] = field(default_factory=list)
    responder_requests: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The summary of the trigger that opened it."""
        return str(self.events[0]["payload"]["summary"])

    @property
    def severity(self) -> str:
        """The severity of the trigger that opened it."""
        return str(self.events[0]["payload"]["severity"])


@dataclass(frozen=True)
class Page:
    """One time that somebody was woken."""

    at: float
    incident: Incident
    cause: Literal["trigger", "responder_request"]
    message: str


class FakePagerDuty(FakeService):
    """PagerDuty on 127.0.0.1; use it as a context manager.

    `routing_keys` are the integration keys of its services. An event with another key of the right
    form is accepted and goes nowhere (see `dropped`), since the Events API is asynchronous; a key
    of the wrong form is refused. `events_per_minute` is for each key.
    """

    def __init__(
        self,
        *,
        routing_keys: Iterable[str] = ("R0000000000000000000000000000001",),
        api_key: str = "fake-pagerduty-api-key",
        events_per_minute: int = 120,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock)
        self.routing_keys = tuple(routing_keys)
        self.api_key = api_key
        self.incidents: list[Incident] = []
        """Oldest first."""
        self.pages: list[Page] = []
        """What woke a human: an incident that was opened, or a request for another responder."""
        self.change_events: list[Mapping[str, Any]] = []
        self.dropped: list[Mapping[str, Any]] = []
        """Accepted with 202, then ignored: no open incident has that key on that routing key."""
        self._rate = RateLimit(events_per_minute, 60, clock)

    @property
    def base_url(self) -> str:
        """Base of the Events API and of the REST API alike: `http://127.0.0.1:<port>`.

        The `pagerduty` client insists on https: give it a transport that rewrites the address.
        """
        return self.origin

    @property
    def routing_key(self) -> str:
        """The first integration key."""
        return self.routing_keys[0]

    def incident(self, dedup_key: str, *, routing_key: str | None = None) -> Incident:
        """Return the latest incident that a trigger with this key opened; KeyError if none."""
        key = routing_key or self.routing_key
        for incident in reversed(self.incidents):
            if (incident.routing_key, incident.dedup_key) == (key, dedup_key):
                return incident
        raise KeyError(dedup_key)

    def answer(self, request: Request) -> Answer:
        """Route one request: an event by its path, anything else to the REST API."""
        match request.method, request.path:
            case "POST", "/v2/enqueue":
                return self._enqueue(request, _EVENT, self._apply)
            case "POST", "/v2/change/enqueue":
                return self._enqueue(request, _CHANGE, self._record_change)
        if request.headers.get("authorization") != f"Token token={self.api_key}":
            return _rest_error(401, "Authentication failed", 2006)
        return self._rest(request)

    def _rest(self, request: Request) -> Answer:
        match (request.method, *request.path.strip("/").split("/")):
            case ("GET", "incidents"):
                return self._list_incidents(request)
            case ("PUT", "incidents"):
                return self._update_incidents(request)
            case (_, "incidents", identity, *rest):
                found = next((i for i in self.incidents if i.id == identity), None)
                if found is None:
                    return _rest_error(404, "Incident Not Found", 5001)
                return self._one_incident(request, found, rest)
        return _rest_error(404, "Not Found", 2100)

    def too_many_requests(self, retry_after: int) -> Answer:
        """429 as both APIs send it; Retry-After is for senders that read it."""
        body = {
            "status": "throttle exceeded",
            "message": "Requests for this service are arriving too quickly. Please retry later.",
            "error": {"message": "Rate Limit Exceeded", "code": 2020},
        }
        return Answer(429, body, {"Retry-After": str(retry_after)})

    def failure(self, code: str, status: int | None) -> Answer:
        """5xx with a body that neither client reads."""
        return _rest_error(status or 500, code, 2000)

    def _enqueue(
        self,
        request: Request,
        schema: Draft202012Validator,
        accept: Callable[[Mapping[str, Any]], Answer],
    ) -> Answer:
        if len(request.body) > MAX_EVENT_BYTES:
            return _invalid_event([f"Event exceeds {MAX_EVENT_BYTES} bytes"], status=413)
        try:
            event = json.loads(request.body)
        except ValueError:
            return _invalid_event(["Event is not valid JSON"])
        errors = [message for error in schema.iter_errors(event) for message in _sentences(error)]
        if errors:
            return _invalid_event(errors)
        wait = self._rate.wait(event["routing_key"])
        return accept(event) if wait is None else self.too_many_requests(wait)

    def _apply(self, event: Mapping[str, Any]) -> Answer:
        """Apply an event to the open incident with its dedup key and routing key, if any."""
        dedup_key = event.get("dedup_key") or uuid.uuid4().hex
        incident = self._open_incident(event["routing_key"], dedup_key)
        known = event["routing_key"] in self.routing_keys
        if event["event_action"] == "trigger" and known:
            if incident is None:
                self._open(event, dedup_key)
            else:
                incident.events.append(event)
        elif incident is None:
            self.dropped.append(event)
        else:
            incident.events.append(event)
            resolving = event["event_action"] == "resolve"
            incident.status = "resolved" if resolving else "acknowledged"
        return Answer(
            202, {"status": "success", "message": "Event processed", "dedup_key": dedup_key}
        )

    def _open(self, event: Mapping[str, Any], dedup_key: str) -> None:
        number = len(self.incidents) + 1
        now = self.clock()
        incident = Incident(f"Q{number:013d}", number, event["routing_key"], dedup_key, now)
        incident.events.append(event)
        self.incidents.append(incident)
        self.pages.append(Page(now, incident, "trigger", incident.title))

    def _open_incident(self, routing_key: str, dedup_key: str) -> Incident | None:
        for incident in self.incidents:
            same = (incident.routing_key, incident.dedup_key) == (routing_key, dedup_key)
            if same and incident.status != "resolved":
                return incident
        return None

    def _record_change(self, event: Mapping[str, Any]) -> Answer:
        known = event["routing_key"] in self.routing_keys
        (self.change_events if known else self.dropped).append(event)
        return Answer(202, {"status": "success", "message": "Change event processed"})

    def _list_incidents(self, request: Request) -> Answer:
        wanted: dict[str, set[str]] = {}
        for name, value in request.query:
            wanted.setdefault(name.removesuffix("[]"), set()).add(value)
        found = [
            _as_json(i)
            for i in self.incidents
            if i.status in wanted.get("statuses", {i.status})
            and i.dedup_key in wanted.get("incident_key", {i.dedup_key})
        ]
        offset = int(next(iter(wanted.get("offset", {"0"}))))
        limit = int(next(iter(wanted.get("limit", {"25"}))))
        return Answer(
            200,
            {
                "incidents": found[offset : offset + limit],
                "limit": limit,
                "offset": offset,
                "more": len(found) > offset + limit,
                "total": None,
            },
        )

    def _update_incidents(self, request: Request) -> Answer:
        changed = []
        for entry in json.loads(request.body)["incidents"]:
            found = next((i for i in self.incidents if i.id == entry["id"]), None)
            if found is None:
                return _rest_error(404, "Incident Not Found", 5001)
            refusal = _refuse_update(request, found, entry)
            if refusal is not None:
                return refusal
            changed.append((found, entry["status"]))
        for incident, status in changed:
            incident.status = status
        return Answer(200, {"incidents": [_as_json(incident) for incident, _ in changed]})

    def _one_incident(self, request: Request, incident: Incident, rest: list[str]) -> Answer:
        match (request.method, *rest):
            case ("GET",):
                return Answer(200, {"incident": _as_json(incident)})
            case ("PUT",):
                entry = json.loads(request.body)["incident"]
                refusal = _refuse_update(request, incident, entry)
                if refusal is None:
                    incident.status = entry["status"]
                return refusal or Answer(200, {"incident": _as_json(incident)})
            case ("GET", "notes"):
                return Answer(200, {"notes": [{"content": note} for note in incident.notes]})
            case ("POST", "notes"):
                return self._add_note(request, incident)
            case ("POST", "responder_requests"):
                return self._request_responder(request, incident)
        return _rest_error(404, "Not Found", 2100)

    def _add_note(self, request: Request, incident: Incident) -> Answer:
        content = json.loads(request.body).get("note", {}).get("content")
        if "from" not in request.headers:
            return _rest_error(400, "You must specify a requester (From header)", 2011)
        if not isinstance(content, str) or not content:
            return _rest_error(400, "Invalid Input Provided", 2001, "Content can't be blank.")
        incident.notes.append(content)
        note = {
            "id": f"N{len(incident.notes):06d}",
            "content": content,
            "created_at": _iso(self.clock()),
        }
        return Answer(201, {"note": note})

    def _request_responder(self, request: Request, incident: Incident) -> Answer:
        body = json.loads(request.body)
        missing = [
            name
            for name in ("requester_id", "message", "responder_request_targets")
            if not body.get(name)
        ]
        if "from" not in request.headers:
            return _rest_error(400, "You must specify a requester (From header)", 2011)
        if missing:
            return _rest_error(400, "Missing Arguments", 2003, *missing)
        if incident.status == "resolved":
            return _rest_error(400, "Incident Already Resolved", 1001)
        incident.responder_requests.append(body)
        self.pages.append(Page(self.clock(), incident, "responder_request", body["message"]))
        return Answer(200, {"responder_request": {**body, "incident": {"id": incident.id}}})


def _refuse_update(request: Request, incident: Incident, entry: Mapping[str, Any]) -> Answer | None:
    if "from" not in request.headers:
        return _rest_error(400, "You must specify a requester (From header)", 2011)
    if entry.get("status") not in {"acknowledged", "resolved"}:
        return _rest_error(400, "Invalid Status Provided", 1003)
    if incident.status == "resolved":
        return _rest_error(400, "Incident Already Resolved", 1001)
    return None


def _as_json(incident: Incident) -> dict[str, Any]:
    return {
        "id": incident.id,
        "type": "incident",
        "incident_number": incident.number,
        "incident_key": incident.dedup_key,
        "title": incident.title,
        "status": incident.status,
        "created_at": _iso(incident.opened_at),
    }


def _sentences(error: ValidationError) -> list[str]:
    """One sentence a fault, naming the field: the Events API answers with such a list."""
    where = ".".join(str(part) for part in error.absolute_path) or "event"
    match error.validator:
        case "required":
            names = re.findall(r"^'(.+)' is a required property$", error.message)
            path = "" if where == "event" else f"{where}."
            return [f"'{path}{name}' is missing or blank" for name in names]
        case "maxLength" if where != "routing_key":
            return [f"'{where}' is longer than {error.validator_value} characters"]
        case "maxLength" | "minLength" if where == "routing_key":
            return ["Length of 'routing_key' is incorrect (should be 32 characters)"]
        case "minLength":
            return [f"'{where}' is missing or blank"]
        case "pattern" if where == "routing_key":
            return ["'routing_key' cannot contain non-alphanumeric characters."]
    return [f"'{where}' is invalid: {error.message}"]


def _invalid_event(errors: list[str], *, status: int = 400) -> Answer:
    body = {"status": "invalid event", "message": "Event object is invalid", "errors": errors}
    return Answer(status, body)


def _rest_error(status: int, message: str, code: int, *errors: str) -> Answer:
    return Answer(status, {"error": {"message": message, "code": code, "errors": list(errors)}})


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
