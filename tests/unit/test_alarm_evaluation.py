"""The tables of AWS's documentation on missing data, and the wording of reasons."""

import pytest

from local.aws.cloudwatch.evaluation import Datapoint, Rule, State, decide
from local.aws.cloudwatch.expressions import ExpressionError, Scope, Value, as_series, evaluate

KEEP = None
OK, ALARM, NO_DATA = State.OK, State.ALARM, State.INSUFFICIENT_DATA

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html:
# datapoints oldest first (0 within the threshold, X breaching, - missing), then the state for
# missing, ignore, breaching and notBreaching.
THREE_OUT_OF_THREE = [
    ("0-X-X", OK, OK, OK, OK),
    ("0----", OK, OK, OK, OK),
    ("-----", NO_DATA, KEEP, ALARM, OK),
    ("0XX-X", ALARM, ALARM, ALARM, ALARM),
    ("--X--", ALARM, KEEP, ALARM, OK),
]
TWO_OUT_OF_THREE = [
    ("0-X-X", ALARM, ALARM, ALARM, ALARM),
    ("00X0X", ALARM, ALARM, ALARM, ALARM),
    ("0-X--", OK, OK, ALARM, OK),
    ("----0", OK, OK, ALARM, OK),
    ("---X-", ALARM, KEEP, ALARM, OK),
]
TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")
CASES = [
    (pattern, needed, treatment, expected)
    for needed, table in ((3, THREE_OUT_OF_THREE), (2, TWO_OUT_OF_THREE))
    for pattern, *states in table
    for treatment, expected in zip(TREATMENTS, states, strict=True)
]


def rule(needed: int, periods: int, treatment: str = "missing") -> Rule:
    return Rule(periods, needed, "GreaterThanThreshold", 10.0, treatment)


def datapoints(pattern: str) -> list[Datapoint | None]:
    """Newest first, one minute apart, ending at 2026-03-01T03:04:00Z."""
    newest_first = []
    for age, mark in enumerate(reversed(pattern)):
        value = {"0": 1.0, "X": 99.5, "-": None}[mark]
        start = 1_772_334_240 - age * 60
        newest_first.append(None if value is None else Datapoint(start, value, 1.0))
    return newest_first


@pytest.mark.parametrize(("pattern", "needed", "treatment", "expected"), CASES)
def test_documented_table(
    pattern: str, needed: int, treatment: str, expected: State | None
) -> None:
    verdict = decide(rule(needed, 3, treatment), datapoints(pattern))
    assert (verdict.state if verdict else KEEP) is expected


def test_a_first_breach_alone_does_not_alarm_prematurely() -> None:
    assert decide(rule(3, 3), datapoints("----X")) is KEEP


@pytest.mark.parametrize(
    ("needed", "periods", "pattern", "expected"),
    [
        (3, 5, "XX00X", ALARM),
        (3, 5, "X000X", OK),
        (1, 1, "00X", ALARM),
        (1, 1, "XX0", OK),
        (2, 3, "XX00X", OK),
    ],
)
def test_m_out_of_n_counts_the_newest_n(
    needed: int, periods: int, pattern: str, expected: State
) -> None:
    verdict = decide(rule(needed, periods), datapoints(pattern))
    assert verdict is not None
    assert verdict.state is expected


@pytest.mark.parametrize(
    ("comparison", "breaching"),
    [
        ("GreaterThanThreshold", [False, False, True]),
        ("GreaterThanOrEqualToThreshold", [False, True, True]),
        ("LessThanThreshold", [True, False, False]),
        ("LessThanOrEqualToThreshold", [True, True, False]),
    ],
)
def test_comparison_operators(comparison: str, breaching: list[bool]) -> None:
    judge = Rule(1, 1, comparison, 10.0)
    assert [judge.breaches(value) for value in (9.0, 10.0, 11.0)] == breaching


@pytest.mark.parametrize(
    ("pattern", "needed", "treatment", "reason"),
    [
        (
            "00X0X",
            2,
            "missing",
            (
                "Threshold Crossed: 2 out of the last 3 datapoints [99.5 (01/03/26 03:04:00), "
                "99.5 (01/03/26 03:02:00)] were greater than the threshold (10.0) "
                "(minimum 2 datapoints for OK -> ALARM transition)."
            ),
        ),
        (
            "XX000",
            3,
            "missing",
            (
                "Threshold Crossed: 3 out of the last 3 datapoints [1.0 (01/03/26 03:04:00), "
                "1.0 (01/03/26 03:03:00), 1.0 (01/03/26 03:02:00)] were not greater than the "
                "threshold (10.0) (minimum 1 datapoint for ALARM -> OK transition)."
            ),
        ),
        ("-----", 3, "missing", "Insufficient Data: 3 datapoints were unknown."),
        (
            "-----",
            3,
            "breaching",
            (
                "Threshold Crossed: no datapoints were received for 3 periods and 3 missing "
                "datapoints were treated as [Breaching]."
            ),
        ),
    ],
)
def test_reasons_are_worded_as_cloudwatch_does(
    pattern: str, needed: int, treatment: str, reason: str
) -> None:
    verdict = decide(rule(needed, 3, treatment), datapoints(pattern))
    assert verdict is not None
    assert verdict.reason == reason


def scope() -> Scope:
    known: dict[str, Value] = {"a": {0: 1.0, 60: 2.0}, "b": {60: 4.0}, "empty": {}}

    def lookup(name: str) -> Value:
        if name not in known:
            raise ExpressionError(f"there is no {name}")
        return known[name]

    return Scope(lookup, lambda: [{0: 1.0, 60: 2.0}, {60: 4.0}], range(0, 180, 60), 60)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 + 2 * 3", {0: 7.0, 60: 7.0, 120: 7.0}),
        ("(1 + 2) * 3", {0: 9.0, 60: 9.0, 120: 9.0}),
        ("2 ^ 3 ^ 0", {0: 2.0, 60: 2.0, 120: 2.0}),
        ("a + b", {60: 6.0}),
        ("a / 0", {}),
        ("FILL(empty, 0)", {0: 0.0, 60: 0.0, 120: 0.0}),
        ("FILL(b, a)", {0: 1.0, 60: 4.0}),
        ("IF(b > 3, 1, 0)", {60: 1.0}),
        ("NOT (a > 1)", {0: 1.0, 60: 0.0}),
        ("a == 1 || a == 2", {0: 1.0, 60: 1.0}),
        ("SUM(METRICS()) / 2", {0: 0.5, 60: 3.0}),
        ("AVG(a)", {0: 1.5, 60: 1.5, 120: 1.5}),
        ("DIFF(a)", {60: 1.0}),
        ("PERIOD(a)", {0: 60.0, 60: 60.0, 120: 60.0}),
    ],
)
def test_expressions(expression: str, expected: dict[int, float]) -> None:
    assert as_series(evaluate(expression, scope()), scope()) == expected


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("", "empty"),
        ("a +", "end"),
        ("a b", "unexpected 'b'"),
        ("SEARCH('x')", "SEARCH is not supported"),
        ("a.__class__", "cannot read"),
        ("nothing", "there is no nothing"),
        ("RATE(1)", "time series"),
        ("FILL(a)", "wrong arguments"),
        ("(" * 200 + "1" + ")" * 200, "nested too deeply"),
    ],
)
def test_expressions_that_are_refused(expression: str, why: str) -> None:
    with pytest.raises(ExpressionError, match=why):
        evaluate(expression, scope())
