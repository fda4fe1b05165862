import pytest

from local.shop import Call, astray, shares, told

HOME, AWAY = "us-east-1", "eu-west-1"
REGIONS = {"127.0.0.1": HOME, "127.0.0.2": AWAY}
FIRST, SECOND = frozenset({"127.0.0.1"}), frozenset({"127.0.0.2"})


def calls(*made: tuple[float, str, int]) -> list[Call]:
    return [Call(*one) for one in made]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ((), "no call"),
        (((1, HOME, 200), (2, AWAY, 200), (3, AWAY, 200), (4, AWAY, 200)),
         "eu-west-1 75%, us-east-1 25%"),
        (((1, HOME, 503), (2, "", 0)), "failed 100%"),
        (((1, HOME, 503), (2, AWAY, 200)), "eu-west-1 50%, failed 50%"),
    ],
)  # fmt: skip
def test_the_share_of_clients_is_that_of_whom_they_were_helped_by(
    made: tuple[tuple[float, str, int], ...], said: str
) -> None:
    assert shares(calls(*made)) == said


def test_answers_of_name_servers_are_told_by_region() -> None:
    assert told({"a": FIRST, "b": SECOND, "c": SECOND}, REGIONS) == (
        "2 of 3 say eu-west-1, 1 of 3 say us-east-1"
    )
    assert told({"a": None, "b": frozenset(), "c": FIRST | SECOND}, REGIONS) == (
        "1 of 3 say eu-west-1+us-east-1, 2 of 3 say nothing"
    )
    assert told({"a": frozenset({"192.0.2.9"})}, REGIONS) == "1 of 1 say 192.0.2.9"


def test_only_the_last_calls_have_to_have_arrived() -> None:
    before = calls((1, HOME, 200), (2, HOME, 503), (3, "", 0))
    after = calls((7, AWAY, 200), (9, AWAY, 200))
    assert astray({"a": SECOND}, before + after, "127.0.0.2", AWAY) == []


@pytest.mark.parametrize("last", [(9.0, HOME, 200), (9.0, AWAY, 503), (9.0, "", 0)])
def test_a_last_call_that_failed_or_went_home_is_told(last: tuple[float, str, int]) -> None:
    made = calls((7, AWAY, 200), last)
    said = ["1 of the last 2 calls were not answered in eu-west-1"]
    assert astray({"a": SECOND}, made, "127.0.0.2", AWAY) == said


def test_every_name_server_has_to_give_the_standby_and_nothing_else() -> None:
    given = {"a": SECOND, "b": FIRST | SECOND, "c": None}
    assert astray(given, [], "127.0.0.2", AWAY) == [
        "b answers 127.0.0.1, 127.0.0.2 and not 127.0.0.2",
        "c answers nothing and not 127.0.0.2",
        "no client has called",
    ]
