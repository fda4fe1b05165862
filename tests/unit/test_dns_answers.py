from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.aws.route53.answers import Zone, answer

_SOA = {
    "Name": "example.com.", "Type": "SOA", "TTL": "900",
    "ResourceRecords": ["ns-1.awsdns-1.com. hostmaster.example.com. 1 7200 900 1209600 300"],
}  # fmt: skip


def rrset(name: str, *values: str, **members: Any) -> dict[str, Any]:
    kind = members.pop("Type", "A")
    found: dict[str, Any] = {"Name": f"{name}.", "Type": kind, **members}
    if "AliasTarget" not in members:
        found |= {"TTL": "60", "ResourceRecords": list(values)}
    return found


def alias(name: str, target: str, *, evaluate: bool = True, **members: Any) -> dict[str, Any]:
    where = {"HostedZoneId": "Z", "DNSName": f"{target}.", "EvaluateTargetHealth": evaluate}
    return rrset(name, AliasTarget=where, **members)


def weighted(*weights: int) -> list[dict[str, Any]]:
    return [
        rrset("w.example.com", str(number), SetIdentifier=str(number), Weight=weight,
              HealthCheckId=str(number))
        for number, weight in enumerate(weights)
    ]  # fmt: skip


def first(_: Sequence[int]) -> int:
    return 0


def asked(name: str, *records: dict[str, Any], sick: Sequence[str] = (), kind: str = "A") -> Any:
    zone = Zone("example.com.", "Z", (_SOA, *records))
    return answer(zone, f"{name}.", kind, lambda check: check not in sick, first)


def values(name: str, *records: dict[str, Any], sick: Sequence[str] = ()) -> list[str]:
    found = asked(name, *records, sick=sick)
    return [value for records in found.records for value in records.values]


def possible(records: list[dict[str, Any]], sick: Sequence[str]) -> set[str]:
    """Every value that some pick leads to."""
    zone = Zone("example.com.", "Z", records)
    found: set[str] = set()
    for index in range(len(records)):

        def pick(weights: Sequence[int], index: int = index) -> int:
            return min(index, len(weights) - 1)

        given = answer(zone, "w.example.com.", "A", lambda check: check not in sick, pick)
        found |= set(given.records[0].values)
    return found


def test_unknown_names_and_types_come_with_the_soa() -> None:
    record = rrset("deep.www.example.com", "192.0.2.1")
    unknown = asked("no.example.com", record)
    assert (unknown.code, unknown.authority.ttl) == ("NXDOMAIN", 300)
    assert asked("www.example.com", record).code == "NOERROR"
    assert asked("deep.www.example.com", record, kind="AAAA").authority.type == "SOA"


@pytest.mark.parametrize(("sick", "expected"), [("", "1"), ("p", "2"), ("s", "1"), ("ps", "1")])
def test_failover(sick: str, expected: str) -> None:
    one = rrset("w.example.com", "1", SetIdentifier="1", Failover="PRIMARY", HealthCheckId="p")
    two = rrset("w.example.com", "2", SetIdentifier="2", Failover="SECONDARY", HealthCheckId="s")
    assert values("w.example.com", one, two, sick=sick) == [expected]


@pytest.mark.parametrize(
    ("weights", "sick", "expected"),
    [
        ((1, 0, 1), "", {"0", "2"}),
        ((0, 0), "", {"0", "1"}),
        ((1, 0), "0", {"1"}),
        ((1, 0), "01", {"0"}),
        ((1, 2), "0", {"1"}),
    ],
)
def test_zero_weights_and_sick_records(
    weights: tuple[int, ...], sick: str, expected: set[str]
) -> None:
    assert possible(weighted(*weights), sick) == expected


@given(st.lists(st.integers(0, 255), min_size=1, max_size=6), st.sets(st.integers(0, 5)))
def test_some_record_always_answers_and_a_healthy_one_if_there_is_any(
    weights: list[int], sick: set[int]
) -> None:
    found = possible(weighted(*weights), [str(number) for number in sick])
    assert found
    if healthy := set(range(len(weights))) - sick:
        assert found <= {str(number) for number in healthy}


def test_the_weights_are_handed_to_the_pick() -> None:
    seen: Counter[tuple[int, ...]] = Counter()

    def pick(weights: Sequence[int]) -> int:
        seen[tuple(weights)] += 1
        return 0

    answer(
        Zone("example.com.", "Z", weighted(3, 0, 1)), "w.example.com.", "A", lambda _: True, pick
    )
    assert seen == {(3, 1): 1}


def test_an_alias_is_as_healthy_as_its_target_if_it_evaluates_it() -> None:
    east, west = weighted(1)[0] | {"Name": "east.example.com."}, rrset("west.example.com", "9")
    second = alias("www.example.com", "west.example.com", SetIdentifier="2", Failover="SECONDARY")
    for evaluate, expected in ((True, ["9"]), (False, ["0"])):
        one = alias("www.example.com", "east.example.com", evaluate=evaluate, SetIdentifier="1",
                    Failover="PRIMARY")  # fmt: skip
        assert values("www.example.com", one, second, east, west, sick="0") == expected
        assert values("www.example.com", one, second, east, west) == ["0"]


def test_cnames_in_the_zone_are_followed_and_wildcards_match() -> None:
    link = rrset("www.example.com", "a.other.example.com", Type="CNAME")
    found = asked("www.example.com", link, rrset("*.other.example.com", "192.0.2.1"))
    assert [(one.name, one.type, one.values) for one in found.records] == [
        ("www.example.com.", "CNAME", ("a.other.example.com",)),
        ("a.other.example.com.", "A", ("192.0.2.1",)),
    ]
    out = rrset("www.example.com", "www.example.org", Type="CNAME")
    assert values("www.example.com", out) == ["www.example.org"]


def test_loops_end() -> None:
    one, two = alias("a.example.com", "b.example.com"), alias("b.example.com", "a.example.com")
    assert not values("a.example.com", one, two)
