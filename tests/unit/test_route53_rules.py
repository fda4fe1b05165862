from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.aws.route53 import health, safety_rules
from local.aws.route53.changes import Change, RefusedError, check

_CHECK = "6f0a"


def rrset(name: str = "www.example.com", kind: str = "A", **members: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"Name": f"{name}.", "Type": kind, **members}
    return found if "AliasTarget" in found else {"TTL": "60", "ResourceRecords": ["x"], **found}


def failover(role: str, **members: Any) -> dict[str, Any]:
    return rrset(**{"SetIdentifier": role, "Failover": role, "HealthCheckId": _CHECK, **members})


def weighted(name: str, **members: Any) -> dict[str, Any]:
    return rrset(SetIdentifier=name, Weight=1, **members)


_ALIAS = {"HostedZoneId": "Z", "DNSName": "east.example.com.", "EvaluateTargetHealth": True}


@pytest.mark.parametrize(
    ("known", "changes", "expected"),
    [
        ([], [("CREATE", rrset("www.example.org"))], "is not permitted in zone example.com."),
        ([], [("CREATE", rrset("notexample.com"))], "is not permitted in zone example.com."),
        ([rrset()], [("CREATE", rrset())], "but it already exists"),
        ([], [("DELETE", rrset())], "but it was not found"),
        ([rrset()], [("DELETE", rrset(TTL="61"))], "do not match the current values"),
        ([rrset()], [("UPSERT", weighted("a"))], "as a non-weighted set exists"),
        ([rrset()], [("UPSERT", failover("PRIMARY"))], "as a non-failover set exists"),
        ([weighted("a")], [("UPSERT", failover("PRIMARY"))], "as a non-failover set exists"),
        ([weighted("a")], [("UPSERT", rrset())], "as other RRSets exist"),
        ([weighted("a")], [("UPSERT", weighted("b", TTL="5"))], "must contain the same TTL"),
        (
            [failover("PRIMARY")],
            [("UPSERT", failover("PRIMARY", SetIdentifier="other"))],
            "as a PRIMARY failover set exists",
        ),
        ([], [("UPSERT", failover("PRIMARY", HealthCheckId=""))], "must have an associated"),
        ([rrset()], [("UPSERT", rrset(kind="CNAME"))], "as it conflicts with other records"),
        ([], [("UPSERT", rrset("example.com", "CNAME"))], "is not permitted at apex"),
        ([], [("UPSERT", rrset(AliasTarget=_ALIAS))], "but that target was not found"),
        # One by one: what makes room comes first.
        ([rrset()], [("CREATE", weighted("a")), ("DELETE", rrset())], "non-weighted set exists"),
    ],
)
def test_what_a_batch_is_refused_for(
    known: list[dict[str, Any]], changes: list[Change], expected: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        check("example.com.", "Z", known, changes, {_CHECK})
    assert caught.value.code == "InvalidChangeBatch"
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("record", "code", "expected"),
    [
        (rrset(HealthCheckId="none"), "NoSuchHealthCheck", "none"),
        (rrset(Weight=1), "InvalidInput", "Missing field 'SetIdentifier'"),
        (rrset(SetIdentifier="a"), "InvalidInput", "Expected exactly one of [Weight"),
        (rrset(ResourceRecords=[]), "InvalidInput", "Expected exactly one of [AliasTarget"),
        (rrset(AliasTarget={}), "InvalidInput", "but found none"),
    ],
)
def test_what_a_record_set_must_have(record: dict[str, Any], code: str, expected: str) -> None:
    with pytest.raises(RefusedError) as caught:
        check("example.com.", "Z", [], [("UPSERT", record)], {_CHECK})
    assert caught.value.code == code
    assert expected in str(caught.value)


def test_a_batch_may_turn_one_policy_into_another() -> None:
    changes: list[Change] = [
        ("DELETE", rrset()),
        ("CREATE", failover("PRIMARY")),
        ("CREATE", failover("SECONDARY")),
        ("CREATE", rrset("east.example.com")),
        ("CREATE", rrset("any.example.com", AliasTarget=_ALIAS)),
    ]
    check("example.com.", "Z", [rrset()], changes, {_CHECK})


@pytest.mark.parametrize(
    ("healthy", "of", "expected"), [(0, 0, True), (1, 8, False), (2, 8, True), (9, 50, False)]
)
def test_an_endpoint_is_healthy_above_eighteen_per_cent(
    healthy: int,
    of: int,
    expected: bool,  # noqa: FBT001 -- a table of cases
) -> None:
    assert health.endpoint([number < healthy for number in range(of)]) is expected


@pytest.mark.parametrize(
    ("state", "insufficient", "last", "expected"),
    [
        ("OK", "Unhealthy", False, True),
        ("ALARM", "Healthy", True, False),
        ("INSUFFICIENT_DATA", "Healthy", False, True),
        ("INSUFFICIENT_DATA", "Unhealthy", True, False),
        ("INSUFFICIENT_DATA", "LastKnownStatus", None, True),
        ("INSUFFICIENT_DATA", "LastKnownStatus", False, False),
    ],
)
def test_an_alarms_check(
    state: str,
    insufficient: str,
    last: bool | None,  # noqa: FBT001
    expected: bool,  # noqa: FBT001
) -> None:
    assert health.alarm(state, insufficient, last) is expected


def test_a_calculated_check_of_nothing_or_too_much() -> None:
    assert health.calculated([False], 0)
    assert not health.calculated([True], 2)


@given(st.booleans(), st.booleans(), st.booleans())
def test_disabled_is_healthy_whatever_else(healthy: bool, inverted: bool, disabled: bool) -> None:  # noqa: FBT001
    config = {"Inverted": inverted, "Disabled": disabled}
    assert health.reported(config, healthy) is (disabled or healthy is not inverted)


def test_a_checker_changes_its_mind_after_so_many_in_a_row() -> None:
    checker = health.Checker()
    results = [False, False, True, False, False, False, True, True, True]
    seen = [checker.add(result, 3) for result in results]
    assert seen == [True, True, True, True, True, False, False, False, True]


@pytest.mark.parametrize(
    ("config", "on", "expected"),
    [
        (("ATLEAST", 2, False), "a", False),
        (("ATLEAST", 2, False), "ab", True),
        (("AND", 0, False), "ab", False),
        (("AND", 0, False), "abc", True),
        (("OR", 0, False), "", False),
        (("OR", 0, False), "c", True),
        (("OR", 0, True), "c", False),
    ],
)
def test_rule_configurations(config: tuple[str, int, bool], on: str, expected: bool) -> None:  # noqa: FBT001
    kind, threshold, inverted = config
    states = {arn: "On" if arn in on else "Off" for arn in "abc"}
    rule = {"Type": kind, "Threshold": threshold, "Inverted": inverted}
    assert safety_rules.holds(rule, "abc", states) is expected


def test_a_rule_about_other_controls_or_about_no_change_blocks_nothing() -> None:
    rule = {
        "SafetyRuleArn": "rule", "Name": "one on", "AssertedControls": ["a"], "WaitPeriodMs": 5000,
        "RuleConfig": {"Type": "OR", "Threshold": 0, "Inverted": False},
    }  # fmt: skip
    states = {"a": "Off", "b": "Off"}

    def blocked(wanted: dict[str, str], ago: dict[str, float] | None = None) -> bool:
        return bool(safety_rules.blocking([rule], states, wanted, (), ago or {}))

    assert not blocked({"b": "On"})
    assert not blocked({"a": "Off"})
    assert not blocked({"a": "On"}, {"a": 5001})
    assert blocked({"a": "On"}, {"a": 4999})
