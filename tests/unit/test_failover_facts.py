"""Facts of a service of which much or everything does not answer."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from oncall import failover, failover_facts, probes, service
from oncall.failover import HEALTH_CHECK, RECORDS, ROUTING_CONTROL, LeverSeen
from oncall.service import Role

SHOP = service.load("shop", service.SAMPLE)
NOW = datetime(2026, 11, 26, 3, 0, tzinfo=UTC)
RULES = {"window_periods": 5.0}


def silence(**_: Any) -> Any:
    raise EndpointConnectionError(endpoint_url="https://nowhere")


def refusal(code: str, status: int = 400) -> Callable[..., Any]:
    def call(**_: Any) -> Any:
        raise ClientError(
            {
                "Error": {"Code": code, "Message": ""},
                "ResponseMetadata": {"HTTPStatusCode": status},  # type: ignore[typeddict-item]  # all that is read
            },
            "Call",
        )

    return call


class Client:
    """A client whose calls are given; all others are not answered."""

    def __init__(self, **calls: Callable[..., Any]) -> None:
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        if name == "get_paginator":
            return lambda _name: SimpleNamespace(paginate=silence)
        return self._calls.get(name, silence)


class Aws:
    """Services of both Regions: ``calls`` by Region, service and operation."""

    def __init__(self, calls: Any = None, endpoints: Any = None, region: str = "eu-west-1") -> None:
        self._calls, self._endpoints = calls or {}, endpoints or {}
        self.settings = SimpleNamespace(region=region, account_floor=100, period_seconds=60)

    def clock(self) -> datetime:
        return NOW

    def within(self, region: str) -> Any:
        return Aws(self._calls, self._endpoints, region)

    def client(self, name: str, region: str = "") -> Any:
        return Client(**self._calls.get(region or self.settings.region, {}).get(name, {}))

    def cluster(self, region: str, _endpoint: str) -> Any:
        return Client(**self._endpoints.get(region, {}))


@pytest.fixture(autouse=True)
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "works", lambda _probe: False)


def read(calls: Any = None, endpoints: Any = None, direction: str = "failover") -> failover.Facts:
    aws: Any = Aws(calls, endpoints)
    return failover_facts.read_facts(aws, SHOP, RULES, direction=direction)


def status(*minutes: tuple[float, float]) -> Callable[..., Any]:
    """Return an answer of HealthCheckStatus: pairs of minutes ago and value."""
    points = [
        {"Timestamp": Aws().clock() - timedelta(minutes=ago), "Minimum": value, "Maximum": value}
        for ago, value in minutes
    ]
    return lambda **_: {"Datapoints": points}


@pytest.mark.parametrize(
    ("minutes", "since"),
    [
        ([(3, 1), (2, 1), (1, 1)], 3),
        ([(1, 1), (3, 1), (2, 1)], 3),
        ([(4, 1), (3, 0), (2, 1), (1, 1)], 2),
        ([(12, 1), (11, 1), (2, 1), (1, 1)], 2),
        ([(2, 1), (1, 0)], None),
        ([(30, 1), (29, 1)], None),
        ([], None),
    ],
)
def test_since_when_it_is_well_is_broken_by_sickness_and_by_silence(
    minutes: list[tuple[float, float]], since: float | None
) -> None:
    aws: Any = Aws({"": {"cloudwatch": {"get_metric_statistics": status(*minutes)}}}, region="")
    found = failover_facts.well_since(aws, ["a", "b"], 3600)
    expected = since and (aws.clock() - timedelta(minutes=since)).timestamp()
    assert found == expected
    assert failover_facts.well_since(aws, [], 3600) is None


def test_the_soak_is_read_in_virginia_and_for_a_failback_only() -> None:
    calls = {"us-east-1": {"cloudwatch": {"get_metric_statistics": status((2, 1), (1, 1))}}}
    assert read(calls, direction="failback").primary.well_since is not None
    assert read(calls).primary.well_since is None


def test_when_nothing_answers_all_is_unknown_and_nothing_is_raised() -> None:
    facts = read()
    for side in (facts.primary, facts.standby):
        assert side.probes == {"eu-west-1": False}
        assert not any(side.answered.values())
        assert (side.checkers, side.consumers, side.capacity) == ({}, (), ())
        assert (side.error_share, side.traffic_share, side.deployed_at) == (None, None, None)
    assert facts.levers == (
        LeverSeen(ROUTING_CONTROL, answered=False),
        LeverSeen(HEALTH_CHECK, answered=False),
        LeverSeen(RECORDS, answered=False),
    )
    assert [(one.name, one.status, one.lag_seconds) for one in facts.stores] == [
        ("shop-orders", "unknown", None),
        ("shop", "unknown", None),
    ]


def test_a_refusal_is_an_answer_and_an_error_of_the_service_is_none() -> None:
    facts = read(
        {
            "us-east-1": {"lambda": {"get_event_source_mapping": refusal("AccessDenied", 403)}},
            "eu-west-1": {"lambda": {"get_event_source_mapping": refusal("Internal", 503)}},
        }
    )
    assert facts.primary.answered["lambda"] is True
    assert facts.standby.answered["lambda"] is False
    assert facts.primary.consumers == ()


def test_routing_controls_are_read_at_whatever_endpoint_answers() -> None:
    on = {"get_routing_control_state": lambda **_: {"RoutingControlState": "On"}}
    facts = read(endpoints={"ap-southeast-2": on})
    seen = facts.lever(ROUTING_CONTROL)
    assert seen == LeverSeen(
        ROUTING_CONTROL,
        answered=True,
        open={"primary": True, "standby": True},
        endpoint="ap-southeast-2",
    )


@pytest.mark.parametrize(
    ("head", "answered", "is_open"),
    [
        (refusal("404", 404), True, {"primary": True, "standby": True}),
        (lambda **_: {}, True, {"primary": False, "standby": True}),
        (refusal("403", 403), False, {}),
    ],
)
def test_what_may_not_be_seen_of_a_signal_is_unknown_not_absent(
    head: Callable[..., Any], is_open: Mapping[Role, bool], *, answered: bool
) -> None:
    seen = read({"eu-west-1": {"s3": {"head_object": head}}}).lever(HEALTH_CHECK)
    assert seen == LeverSeen(HEALTH_CHECK, answered=answered, open=is_open)


def sets(*names: str, **weights: int) -> Callable[..., Any]:
    return lambda **_: {
        "ResourceRecordSets": [
            {
                "Name": "shop.example.com.",
                "Type": "A",
                "SetIdentifier": name,
                **({"Weight": weights.get(name.partition("-")[0], 1)} if weights else {}),
            }
            for name in names
        ]
    }


@pytest.mark.parametrize(
    ("found", "differs"),
    [
        (sets("shop-us-east-1", shop=1), "there is no record set shop-eu-west-1"),
        (
            sets("shop-us-east-1", "shop-eu-west-1", "old", shop=1),
            "there is one more record set, old",
        ),
        (sets("shop-us-east-1", "shop-eu-west-1"), "its record sets are not weighted"),
        (sets("shop-us-east-1", "shop-eu-west-1", shop=1), ""),
    ],
)
def test_record_sets_are_held_against_the_file(found: Callable[..., Any], differs: str) -> None:
    seen = read({"eu-west-1": {"route53": {"list_resource_record_sets": found}}}).lever(RECORDS)
    assert seen is not None
    assert seen.answered
    assert seen.differs == differs


def test_checkers_of_a_region_that_disagree_go_by_most() -> None:
    statuses = [
        ("us-west-2", "Success: HTTP Status Code 200, OK"),
        ("us-west-2", "Success: HTTP Status Code 200, OK"),
        ("us-west-2", "Failure: Connection timed out."),
        ("sa-east-1", "Success: HTTP Status Code 200, OK"),
        ("sa-east-1", "Failure: Connection timed out."),
    ]
    answer = {
        "HealthCheckObservations": [
            {"Region": region, "StatusReport": {"Status": status}} for region, status in statuses
        ]
    }
    calls = {"get_health_check_status": lambda **_: answer}
    # Each Region's side asks by a client of its own: the primary's does not answer here.
    facts = read({"eu-west-1": {"route53": calls}})
    assert facts.standby.checkers == {"us-west-2": True, "sa-east-1": False}
    assert facts.primary.checkers == {}
