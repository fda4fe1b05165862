"""The fake PagerDuty, driven by PagerDuty's own client."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from pagerduty import (
    Error,
    EventsApiV2Client,
    HttpError,
    RestApiV2Client,
    ServerHttpError,
    UrlError,
)

from local.pagerduty import FakePagerDuty

if TYPE_CHECKING:
    from collections.abc import Iterator

type Json = dict[str, Any]

KEY = "R0000000000000000000000000000001"
OTHER_KEY = "R0000000000000000000000000000002"
ALARM = "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:orders-depth"
REFERENCE = "https://events.example.com"
HTTP = httpx2.Client()


class Elsewhere(httpx2.HTTPTransport):
    """Carries a request to another address: the client itself accepts nothing but https."""

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self._base = httpx2.URL(base_url)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.url = request.url.copy_with(
            scheme=self._base.scheme, host=self._base.host, port=self._base.port
        )
        return super().handle_request(request)


class Clock:
    """A clock that stands still until it is moved."""

    now = 1_795_402_800.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pagerduty(clock: Clock) -> Iterator[FakePagerDuty]:
    with FakePagerDuty(routing_keys=(KEY, OTHER_KEY), clock=clock) as fake:
        yield fake


def events_client(pagerduty: FakePagerDuty, key: str = KEY) -> EventsApiV2Client:
    client = EventsApiV2Client(key, base_url=REFERENCE, transport=Elsewhere(pagerduty.base_url))
    # Left alone the client retries 429 for ever and 5xx for minutes.
    client.retry = {429: 2, 500: 2, 503: 2}
    client.sleep_timer = 0.001
    return client


@pytest.fixture
def events(pagerduty: FakePagerDuty) -> Iterator[EventsApiV2Client]:
    with events_client(pagerduty) as client:
        yield client


@pytest.fixture
def rest(pagerduty: FakePagerDuty) -> Iterator[RestApiV2Client]:
    transport = Elsewhere(pagerduty.base_url)
    with RestApiV2Client(
        pagerduty.api_key,
        default_from="oncall@example.com",
        base_url=REFERENCE,
        transport=transport,
    ) as client:
        yield client


def send(pagerduty: FakePagerDuty, event: Any, path: str = "/v2/enqueue") -> httpx2.Response:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    return HTTP.post(pagerduty.base_url + path, content=body)


def trigger(**changes: Any) -> Json:
    payload = {"summary": "orders is stuck", "source": ALARM, "severity": "critical"}
    payload |= changes.pop("payload", {})
    event = {"routing_key": KEY, "event_action": "trigger", "dedup_key": ALARM, "payload": payload}
    return {name: value for name, value in (event | changes).items() if value is not None}


def change(**changes: Any) -> Json:
    payload = {"summary": "raised 20 to 60"} | changes.pop("payload", {})
    return {"routing_key": KEY, "payload": payload} | changes


def test_the_client_refuses_http_so_a_transport_carries_it_over(
    pagerduty: FakePagerDuty, events: EventsApiV2Client
) -> None:
    with pytest.raises(UrlError, match="https"):
        EventsApiV2Client(KEY, base_url=pagerduty.base_url)
    assert events.trigger("orders is stuck", ALARM, dedup_key=ALARM) == ALARM
    assert [page.message for page in pagerduty.pages] == ["orders is stuck"]


def test_an_accepted_event_is_answered_as_documented(pagerduty: FakePagerDuty) -> None:
    answer = send(pagerduty, trigger())
    assert answer.status_code == 202
    assert answer.json() == {
        "status": "success",
        "message": "Event processed",
        "dedup_key": ALARM,
    }
    assert send(pagerduty, change(), "/v2/change/enqueue").status_code == 202
    assert len({send(pagerduty, trigger(dedup_key=None)).json()["dedup_key"] for _ in "ab"}) == 2


# Each rule twice: the extreme that is accepted, the least that is refused, and the words.
RULES: dict[str, tuple[Json, Json, str]] = {
    "routing_key length": (
        trigger(routing_key="R" * 32),
        trigger(routing_key="R" * 31),
        "Length of 'routing_key' is incorrect (should be 32 characters)",
    ),
    "routing_key letters": (
        trigger(routing_key="a1" * 16),
        trigger(routing_key="-1" * 16),
        "'routing_key' cannot contain non-alphanumeric characters.",
    ),
    "routing_key": (
        trigger(),
        {"event_action": "trigger", "payload": trigger()["payload"]},
        "'routing_key' is missing or blank",
    ),
    "event_action": (
        trigger(),
        trigger(event_action="page"),
        "'event_action' is invalid: 'page' is not one of ['trigger', 'acknowledge', 'resolve']",
    ),
    "dedup_key length": (
        trigger(dedup_key="x" * 255),
        trigger(dedup_key="x" * 256),
        "'dedup_key' is longer than 255 characters",
    ),
    "dedup_key of a resolve": (
        {"routing_key": KEY, "event_action": "resolve", "dedup_key": ALARM},
        {"routing_key": KEY, "event_action": "resolve"},
        "'dedup_key' is missing or blank",
    ),
    "payload": (trigger(), trigger() | {"payload": []}, "'payload' is invalid: []"),
    "summary length": (
        trigger(payload={"summary": "x" * 1024}),
        trigger(payload={"summary": "x" * 1025}),
        "'payload.summary' is longer than 1024 characters",
    ),
    "summary": (
        trigger(),
        trigger(payload={"summary": ""}),
        "'payload.summary' is missing or blank",
    ),
    "source": (
        trigger(),
        {**trigger(), "payload": {"summary": "x", "severity": "info"}},
        "'payload.source' is missing or blank",
    ),
    "severity": (
        trigger(payload={"severity": "info"}),
        trigger(payload={"severity": "high"}),
        "'payload.severity' is invalid: 'high' is not one of",
    ),
    "timestamp": (
        trigger(payload={"timestamp": "2026-11-23T03:00:00.000+0000"}),
        trigger(payload={"timestamp": "three o'clock"}),
        "'payload.timestamp' is invalid",
    ),
    "custom_details": (
        trigger(payload={"custom_details": {"depth": 12900}}),
        trigger(payload={"custom_details": "12900"}),
        "'payload.custom_details' is invalid",
    ),
    "links": (
        trigger(links=[{"href": "https://example.com/", "text": "run"}]),
        trigger(links=[{"text": "run"}]),
        "'links.0.href' is missing or blank",
    ),
    "images": (
        trigger(images=[{"src": "https://example.com/a.png"}]),
        trigger(images=[{"src": "http://example.com/a.png"}]),
        "'images.0.src' is invalid",
    ),
}
CHANGE_RULES: dict[str, tuple[Json, Json, str]] = {
    "summary length": (
        change(payload={"summary": "x" * 1024}),
        change(payload={"summary": "x" * 1025}),
        "'payload.summary' is longer than 1024 characters",
    ),
    "payload": (change(), {"routing_key": KEY}, "'payload' is missing or blank"),
    "links": (
        change(links=[{"href": "https://example.com/"}]),
        change(links=["https://example.com/"]),
        "'links.0' is invalid",
    ),
}
CASES = [("/v2/enqueue", *case) for case in RULES.values()] + [
    ("/v2/change/enqueue", *case) for case in CHANGE_RULES.values()
]


@pytest.mark.parametrize(
    ("path", "fits", "breaks", "words"), CASES, ids=[*RULES, *(f"change {n}" for n in CHANGE_RULES)]
)
def test_rule_of_the_schema(
    pagerduty: FakePagerDuty, path: str, fits: Json, breaks: Json, words: str
) -> None:
    refused = send(pagerduty, breaks, path)
    assert refused.status_code == 400
    body = refused.json()
    assert (body["status"], body["message"]) == ("invalid event", "Event object is invalid")
    assert any(error.startswith(words) for error in body["errors"]), body["errors"]
    assert (pagerduty.incidents, pagerduty.change_events, pagerduty.dropped) == ([], [], [])

    assert send(pagerduty, fits, path).status_code == 202
    assert pagerduty.incidents or pagerduty.change_events or pagerduty.dropped


def test_every_fault_is_told_at_once(pagerduty: FakePagerDuty) -> None:
    event = {"routing_key": KEY, "event_action": "trigger", "payload": {"severity": "high"}}
    errors = send(pagerduty, event).json()["errors"]
    assert len(errors) == len(set(errors)) == 3
    assert {"'payload.summary' is missing or blank", "'payload.source' is missing or blank"} < set(
        errors
    )
    assert send(pagerduty, b"{").json()["errors"] == ["Event is not valid JSON"]


def test_an_event_has_at_most_512_kilobytes(pagerduty: FakePagerDuty) -> None:
    room = 512 * 1024 - len(json.dumps(trigger(payload={"custom_details": {"log": ""}})))
    fits = trigger(payload={"custom_details": {"log": "x" * room}})
    exceeds = trigger(payload={"custom_details": {"log": "x" * (room + 1)}})
    assert send(pagerduty, exceeds).status_code == 413
    assert pagerduty.incidents == []
    assert send(pagerduty, fits).status_code == 202


def test_the_client_raises_what_was_refused(
    pagerduty: FakePagerDuty, events: EventsApiV2Client
) -> None:
    with pytest.raises(HttpError, match="400"):
        events.trigger("x" * 1025, ALARM)
    assert pagerduty.pages == []


def test_one_problem_pages_once(pagerduty: FakePagerDuty, events: EventsApiV2Client) -> None:
    events.trigger("stuck", ALARM, dedup_key=ALARM)
    events.trigger("still stuck", ALARM, dedup_key=ALARM)
    events.acknowledge(ALARM)
    events.trigger("stuck again", ALARM, dedup_key=ALARM)
    incident = pagerduty.incident(ALARM)
    assert pagerduty.incident(ALARM).status == "acknowledged"
    actions = [event["event_action"] for event in incident.events]
    assert actions == ["trigger", "trigger", "acknowledge", "trigger"]
    assert [(page.incident.id, page.cause) for page in pagerduty.pages] == [
        (incident.id, "trigger")
    ]
    events.resolve(ALARM)
    assert pagerduty.incident(ALARM).status == "resolved"


def test_after_resolve_the_same_key_opens_and_pages_anew(
    pagerduty: FakePagerDuty, events: EventsApiV2Client
) -> None:
    events.trigger("first", ALARM, dedup_key=ALARM)
    events.resolve(ALARM)
    events.acknowledge(ALARM)
    events.trigger("second", ALARM, dedup_key=ALARM)
    assert [(i.title, i.status) for i in pagerduty.incidents] == [
        ("first", "resolved"),
        ("second", "triggered"),
    ]
    assert pagerduty.incident(ALARM).title == "second"
    assert [page.message for page in pagerduty.pages] == ["first", "second"]
    assert [event["event_action"] for event in pagerduty.dropped] == ["acknowledge"]


def test_events_of_another_routing_key_do_not_meet(
    pagerduty: FakePagerDuty, events: EventsApiV2Client
) -> None:
    events.trigger("stuck", ALARM, dedup_key=ALARM)
    other = events_client(pagerduty, OTHER_KEY)
    other.acknowledge(ALARM)
    other.resolve(ALARM)
    events.resolve("nobody knows this key")
    assert pagerduty.incident(ALARM).status == "triggered"
    assert [event["event_action"] for event in pagerduty.dropped] == [
        "acknowledge",
        "resolve",
        "resolve",
    ]
    other.trigger("stuck", ALARM, dedup_key=ALARM)
    assert len(pagerduty.pages) == 2
    with pytest.raises(KeyError):
        pagerduty.incident("nobody knows this key")


def test_a_key_of_nobody_is_accepted_and_wakes_nobody(pagerduty: FakePagerDuty) -> None:
    stranger = events_client(pagerduty, "R9999999999999999999999999999999")
    stranger.trigger("stuck", ALARM, dedup_key=ALARM)
    stranger.send_change_event({"summary": "raised"})
    assert (pagerduty.pages, pagerduty.change_events) == ([], [])
    assert len(pagerduty.dropped) == 2


def test_a_change_event_wakes_nobody(pagerduty: FakePagerDuty, events: EventsApiV2Client) -> None:
    with pytest.raises(AttributeError):
        events.submit("raised 20 to 60", "runbooks")  # the client's own timestamp is broken
    events.submit("raised 20 to 60", "runbooks", timestamp="2026-11-23T03:02:00+00:00")
    (event,) = pagerduty.change_events
    assert event["payload"]["summary"] == "raised 20 to 60"
    assert (pagerduty.pages, pagerduty.incidents) == ([], [])


def test_too_many_events_a_minute_are_refused(clock: Clock) -> None:
    with FakePagerDuty(events_per_minute=2, clock=clock) as pagerduty:
        codes = [send(pagerduty, trigger()).status_code for _ in range(3)]
        other_key = send(pagerduty, trigger(routing_key=OTHER_KEY)).status_code
        clock.now += 60
        later = send(pagerduty, trigger()).status_code
    assert (codes, other_key, later) == ([202, 202, 429], 202, 202)


def test_failures_can_be_switched_on_and_off(
    pagerduty: FakePagerDuty, events: EventsApiV2Client
) -> None:
    pagerduty.rate_limited(2)
    events.trigger("after two refusals", ALARM, dedup_key="a")
    assert len(pagerduty.requests) == 3

    pagerduty.rate_limited(3)
    with pytest.raises(HttpError, match="429"):
        events.trigger("given up", ALARM, dedup_key="b")

    pagerduty.error("internal_error")
    with pytest.raises(ServerHttpError, match="500"):
        events.trigger("broken", ALARM, dedup_key="c")
    pagerduty.down(status=503)
    with pytest.raises(ServerHttpError, match="503"):
        events.trigger("unavailable", ALARM, dedup_key="d")
    pagerduty.up()

    pagerduty.down()
    with pytest.raises(Error, match="network error"):
        events.trigger("refused", ALARM, dedup_key="e")
    pagerduty.up()

    events.trigger("up again", ALARM, dedup_key="f")
    assert [page.message for page in pagerduty.pages] == ["after two refusals", "up again"]


def test_a_slow_answer_comes_after_the_event_was_taken(
    pagerduty: FakePagerDuty, events: EventsApiV2Client
) -> None:
    events.timeout = 0.2  # type: ignore[assignment]  # inferred from a default of 60
    events.max_network_attempts = 1
    pagerduty.slow(30)
    with pytest.raises(Error, match="network error"):
        events.trigger("twice sent, once paged", ALARM, dedup_key=ALARM)
    assert len(pagerduty.incident(ALARM).events) == 2
    assert len(pagerduty.pages) == 1


def test_incidents_are_found_read_and_changed_by_rest(
    pagerduty: FakePagerDuty, events: EventsApiV2Client, rest: RestApiV2Client
) -> None:
    for key in ("a", "b"):
        events.trigger(f"stuck {key}", ALARM, dedup_key=key)
    events.resolve("b")
    listed = list(rest.iter_all("incidents", params={"statuses[]": ["triggered"]}))
    assert [i["title"] for i in listed] == ["stuck a"]
    by_key = rest.rget("/incidents", params={"incident_key": "b"})
    assert [i["incident_key"] for i in by_key] == ["b"]
    path = f"/incidents/{listed[0]['id']}"
    assert rest.rget(path)["status"] == "triggered"

    rest.rput(path, json={"type": "incident_reference", "status": "acknowledged"})
    assert pagerduty.incident("a").status == "acknowledged"
    identity = listed[0]["id"]
    entry = {"id": identity, "type": "incident_reference", "status": "resolved"}
    rest.rput("/incidents", json=[entry])
    assert pagerduty.incident("a").status == "resolved"

    with pytest.raises(HttpError, match="Incident Already Resolved"):
        rest.rput(path, json={"type": "incident_reference", "status": "acknowledged"})
    with pytest.raises(HttpError, match="Invalid Status Provided"):
        rest.rput(path, json={"type": "incident_reference", "status": "open"})
    with pytest.raises(HttpError, match="404"):
        rest.rget("/incidents/Q404")
    with pytest.raises(HttpError, match="404"):
        rest.rget("/teams")


def test_a_note_is_added_in_somebodys_name(
    pagerduty: FakePagerDuty, events: EventsApiV2Client, rest: RestApiV2Client
) -> None:
    events.trigger("stuck", ALARM, dedup_key=ALARM)
    incident = pagerduty.incident(ALARM)
    path = f"/incidents/{incident.id}/notes"
    rest.rpost(path, json={"content": "12,900 before, 0 after"})
    with pytest.raises(HttpError, match="400"):
        rest.rpost(path, json={"content": ""})
    del rest.headers["From"]
    with pytest.raises(HttpError, match="From header"):
        rest.rpost(path, json={"content": "anonymous"})
    assert incident.notes == ["12,900 before, 0 after"]
    assert [note["content"] for note in rest.rget(path)] == incident.notes


def test_a_responder_request_wakes_one_more(
    pagerduty: FakePagerDuty, events: EventsApiV2Client, rest: RestApiV2Client
) -> None:
    events.trigger("stuck", ALARM, dedup_key=ALARM)
    incident = pagerduty.incident(ALARM)
    path = f"/incidents/{incident.id}/responder_requests"
    target = {"responder_request_target": {"id": "PSECOND", "type": "user_reference"}}
    request = {
        "requester_id": "PRUNBOOK",
        "message": "20 to 60 did not help",
        "responder_request_targets": [target],
    }
    assert rest.post(path, json={"message": "incomplete"}).json()["error"]["errors"] == [
        "requester_id",
        "responder_request_targets",
    ]
    assert rest.post(path, json=request).status_code == 200
    assert [(page.cause, page.message) for page in pagerduty.pages] == [
        ("trigger", "stuck"),
        ("responder_request", "20 to 60 did not help"),
    ]
    events.resolve(ALARM)
    assert rest.post(path, json=request).status_code == 400
    assert len(incident.responder_requests) == 1


def test_the_rest_api_lets_nobody_in_without_the_key(pagerduty: FakePagerDuty) -> None:
    transport = Elsewhere(pagerduty.base_url)
    stranger = RestApiV2Client("guessed", base_url=REFERENCE, transport=transport)
    with pytest.raises(HttpError, match="401"):
        stranger.rget("/incidents")
