"""Letters: what becomes of each, what is sent of it, how large that is, how many go together."""

import base64
import hashlib
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncall import letters
from oncall.errors import BadInput
from oncall.letters import MARK, Destination, Fate, Letter, Sorting, compile_rules, next_batch

NOW = 1_800_000_000.0
RUN = "orders-dlq-2027-01-15T08-00-00"
STANDARD = Destination(fifo=False, max_message_bytes=262_144)
FIFO = Destination(fifo=True, max_message_bytes=262_144)


def text(value: str, kind: str = "String") -> dict[str, str]:
    return {"DataType": kind, "StringValue": value}


def binary(value: bytes) -> dict[str, str]:
    return {"DataType": "Binary", "BinaryValue": base64.b64encode(value).decode()}


def letter(body: str = '{"order": 7}', /, **attributes: Any) -> Letter:
    system = {
        "SentTimestamp": str(int((NOW - 3600) * 1000)),
        "ApproximateReceiveCount": "4",
        "DeadLetterQueueSourceArn": "arn:aws:sqs:eu-west-1:123456789012:orders",
    }
    return {
        "MessageId": "5fea7756-0ea4-451a-a703-a558b933e274",
        "Body": body,
        "MD5OfBody": hashlib.md5(body.encode(), usedforsecurity=False).hexdigest(),
        "Attributes": system,
        "MessageAttributes": attributes,
    }


def marked(count: int, run: str = "an-earlier-run") -> Letter:
    return letter(**{MARK: text(f"{count};{run};the-first-id")})


def sorting(
    rules: Any = (), destination: Destination = STANDARD, max_replays: int = 3, run: str = RUN
) -> Sorting:
    return Sorting(run, destination, compile_rules(list(rules)), max_replays)


def fate(one: Letter, *rules: Any, destination: Destination = STANDARD) -> Fate:
    return sorting(rules, destination).judge(one, NOW)[0]


def rule(then: str = "quarantine", **when: Any) -> dict[str, Any]:
    return {"name": "it", "when": when, "then": then}


def test_a_letter_that_no_rule_is_about_is_replayed() -> None:
    assert fate(letter()) == ("replay", "")
    assert fate(letter(), rule(body_matches="refund")) == ("replay", "")


def test_the_first_rule_that_matches_decides() -> None:
    rules = [
        {"name": "refunds", "when": {"body_matches": "refund"}, "then": "drop"},
        {"name": "orders", "when": {"body_matches": "order"}, "then": "leave"},
        {"name": "rest", "when": {}, "then": "quarantine"},
    ]

    assert fate(letter('{"order": 1, "refund": 2}'), *rules) == ("drop", "refunds")
    assert fate(letter('{"order": 1}'), *rules) == ("leave", "orders")
    assert fate(letter("{}"), *rules) == ("quarantine", "rest")


@pytest.mark.parametrize(
    ("when", "one"),
    [
        ({"attributes": {"tenant": "^acme$"}}, letter(tenant=text("acme"))),
        ({"attributes": {"tries": "^[5-9]"}}, letter(tries=text("7", "Number"))),
        ({"body_schema": {"required": ["order"]}}, letter()),
        ({"body_schema": {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}}, letter()),
        ({"body_matches": '"order": \\d'}, letter()),
        ({"error": "^4\\d\\d$"}, letter(ErrorCode=text("429", "Number"))),
        ({"error": "timed out"}, letter(ErrorMessage=text("Task timed out after 3 s"))),
        ({"error": "NO_PERMISSIONS"}, letter(ERROR_CODE=text("NO_PERMISSIONS"))),
        ({"source": ":orders$"}, letter()),
        ({"older_than_seconds": 3599}, letter()),
        ({"younger_than_seconds": 3601}, letter()),
        ({"received_at_least": 4}, letter()),
        ({"replays_at_least": 2}, marked(2)),
        ({"older_than_seconds": 60, "body_matches": "order"}, letter()),
    ],
)
def test_a_condition_holds(when: Any, one: Letter) -> None:
    assert fate(one, rule(**when)) == ("quarantine", "it")


@pytest.mark.parametrize(
    ("when", "one"),
    [
        ({"attributes": {"tenant": "^acme$"}}, letter()),
        ({"attributes": {"tenant": "acme", "tier": "."}}, letter(tenant=text("acme"))),
        ({"attributes": {"blob": ".*"}}, letter(blob=binary(b"acme"))),
        ({"body_schema": {"required": ["order"]}}, letter("order 7")),
        ({"body_schema": True}, letter("not JSON")),
        ({"body_schema": {"required": ["refund"]}}, letter()),
        ({"body_schema": True}, letter("[" * 100_000)),
        (
            {
                "body_schema": {
                    "$ref": "#/$defs/a",
                    "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}},
                }
            },
            letter("[" * 3000 + "]" * 3000),
        ),
        ({"error": "429"}, letter()),
        ({"source": ":refunds$"}, letter()),
        ({"older_than_seconds": 3601}, letter()),
        ({"younger_than_seconds": 3599}, letter()),
        ({"received_at_least": 5}, letter()),
        ({"replays_at_least": 1}, letter()),
        ({"older_than_seconds": 60, "body_matches": "refund"}, letter()),
    ],
)
def test_a_condition_does_not_hold(when: Any, one: Letter) -> None:
    assert fate(one, rule(**when)) == letters.REPLAY


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({}, "rules: {} is not of type 'array'. Give for example [{"),
        ([{"name": "a", "when": {}}], "rules.0: 'then' is a required property. Give for example"),
        ([rule(then="delete")], "rules.0.then: 'delete' is not one of ['replay', "),
        ([rule(bodymatches="x")], "rules.0.when: Additional properties are not allowed"),
        ([rule(body_matches="(")], "rules.0.when.body_matches: '(' is not a 'regex'. Give"),
        ([rule(attributes={"a": "["})], "rules.0.when.attributes.a: '[' is not a 'regex'."),
        ([rule(received_at_least=0)], "rules.0.when.received_at_least: 0 is less than the min"),
        ([rule(), rule()], "rules.1.name: 'it' is taken, by another rule"),
        ([{**rule(), "name": "bounced"}], "rules.0.name: 'bounced' is taken, by another rule or"),
        ([rule(body_schema={"type": "objekt"})], "rules.0.when.body_schema: 'objekt' is not"),
        ([rule(body_schema={"$ref": "#/$defs/a"})], "refers to '#/$defs/a', which is not in it."),
        ([rule(body_schema={"items": [{"$ref": "https://x.example/s"}]})], "body_schema: "),
        ([rule(body_schema={"not": {"$ref": "https://x.example/s"}})], "'https://x.example/s'"),
    ],
)
def test_wrong_rules_are_told_by_field_with_an_example(raw: Any, said: str) -> None:
    with pytest.raises(BadInput) as told:
        compile_rules(raw)

    assert said in str(told.value)


ANY = rule("drop")


def test_a_letter_that_this_run_has_replayed_has_bounced() -> None:
    assert fate(marked(1, RUN), ANY) == letters.BOUNCED
    assert fate(marked(1, "another"), ANY) == ("drop", "it")


@pytest.mark.parametrize(
    ("body", "sent", "then"),
    [
        ('{"b": 2, "a": 1}', 101, "quarantine"),  # as a function's event is written anew
        ('{"a": 1, "b": 2}', 99, "replay"),  # its like was there before
        ('{"a": 1}', 101, "replay"),
        ("not JSON", 101, "quarantine"),
    ],
)
def test_a_letter_without_its_mark_is_known_by_its_body(body: str, sent: int, then: str) -> None:
    known = letters.Unmarked(since=100, delivered=str)
    sorts = Sorting(RUN, STANDARD, compile_rules([]), 3, known)
    for replayed in ('{"a": 1, "b": 2}', "not JSON"):
        sorts.replayed(letter(replayed))
    one = letter(body)
    one["Attributes"]["SentTimestamp"] = str(sent * 1000)
    assert sorts.judge(one, 200)[0].then == then


def test_a_letter_is_not_replayed_more_often_than_may_be() -> None:
    assert fate(marked(3), ANY) == letters.TOO_OFTEN
    assert fate(marked(2)) == letters.REPLAY


def test_a_mark_that_is_none_of_ours_counts_for_nothing() -> None:
    for value in ("", "9", "many;run;id", "²;run;id", "1;run;id;more"):
        one = letter(**{MARK: text(value)})

        assert letters.read_mark(one) is None
        assert fate(one) == letters.REPLAY
    assert letters.read_mark(letter(**{MARK: binary(b"1;run;id")})) is None


def test_a_damaged_letter_is_left_whatever_the_rules_say() -> None:
    damaged = {**letter(), "MD5OfBody": "0" * 32}
    surrogate = {**letter(), "Body": "\ud800"}

    assert fate(damaged, ANY) == fate(surrogate, ANY) == letters.DAMAGED


def test_what_cannot_be_sent_is_left_unless_it_need_not_be() -> None:
    full = letter(**{f"a{n}": text("x") for n in range(10)})
    large = letter("x" * 262_144)

    assert fate(full) == letters.TEN_ATTRIBUTES
    assert fate(large) == letters.TOO_LARGE
    assert fate(letter(), destination=FIFO) == letters.NO_GROUP
    assert fate(full, ANY) == fate(large, ANY) == ("drop", "it")


def test_the_mark_takes_no_room_where_there_was_one() -> None:
    nine = {f"a{n}": text("x") for n in range(9)}

    assert fate(letter(**nine)) == letters.REPLAY
    assert fate(letter(**nine, **{MARK: text("1;other;id")})) == letters.REPLAY


def test_the_largest_letter_still_fits_with_its_mark() -> None:
    mark = len(MARK) + len("String") + len(f"1;{RUN};{letter()['MessageId']}")

    assert fate(letter("x" * (262_144 - mark))) == letters.REPLAY
    assert fate(letter("x" * (262_144 - mark + 1))) == letters.TOO_LARGE


def test_everything_of_a_letter_is_sent() -> None:
    pointer = text("1048577", "Number")
    one = letter(ExtendedPayloadSize=pointer, blob=binary(b"\0\1"), tenant=text("acme"))
    one["Attributes"] |= {"AWSTraceHeader": "Root=1-5759e988", "MessageGroupId": "tenant-7"}

    assert sorting().entry(one) == {
        "Id": one["MessageId"],
        "MessageBody": one["Body"],
        "MessageAttributes": {
            "ExtendedPayloadSize": pointer,
            "blob": binary(b"\0\1"),
            "tenant": text("acme"),
            MARK: text(f"1;{RUN};{one['MessageId']}"),
        },
        "MessageSystemAttributes": {"AWSTraceHeader": text("Root=1-5759e988")},
        "MessageGroupId": "tenant-7",
    }
    assert MARK not in one["MessageAttributes"]


def test_a_later_replay_counts_on_and_keeps_the_first_id() -> None:
    entry = sorting().entry(marked(2))

    assert entry["MessageAttributes"][MARK] == text(f"3;{RUN};the-first-id")


def test_a_deduplication_id_is_the_runs_and_the_letters_own() -> None:
    one = letter()
    one["Attributes"] |= {"MessageGroupId": "g", "MessageDeduplicationId": "as-first-sent"}
    long_run = "x" * 200

    def made(run: str, message: str) -> str:
        return str(
            sorting(destination=FIFO, run=run).entry({**one, "MessageId": message})[
                "MessageDeduplicationId"
            ]
        )

    ids = {made(run, message) for run in (RUN, long_run) for message in ("a", "b")}
    assert len(ids) == 4
    assert all(len(one) <= 128 for one in ids)
    assert made(RUN, "a") == made(RUN, "a")
    assert "MessageDeduplicationId" not in sorting().entry(one)


def counted_by_sqs(entry: letters.Entry) -> int:
    size = len(entry["MessageBody"].encode())
    for name, value in entry["MessageAttributes"].items():
        size += len(name.encode()) + len(value["DataType"])
        if "BinaryValue" in value:
            size += len(base64.b64decode(value["BinaryValue"]))
        else:
            size += len(value["StringValue"].encode())
    return size


ATTRIBUTES = st.one_of(
    st.text(min_size=1).map(text), st.binary(min_size=1).map(binary), st.just(text("7", "Number"))
)
UTF8 = st.text(st.characters(codec="utf-8"))


@given(UTF8, st.dictionaries(UTF8, ATTRIBUTES, max_size=9), st.booleans())
def test_a_size_is_that_of_what_is_sent(body: str, attributes: Any, again: bool) -> None:  # noqa: FBT001 -- an example's
    one = letter(body)
    one["MessageAttributes"] = {**attributes, **({MARK: text("9;a;b")} if again else {})}
    one["Attributes"]["AWSTraceHeader"] = "Root=1-5759e988"

    assert sorting(max_replays=99).judge(one, NOW)[1] == counted_by_sqs(sorting().entry(one))


def in_group(number: int, group: str) -> Letter:
    one = letter(str(number))
    one["Attributes"]["MessageGroupId"] = group
    return one


@given(
    st.lists(st.tuples(st.integers(1, letters.BATCH_BYTES), st.sampled_from("abc"))),
    st.booleans(),
)
def test_batches_keep_the_limits_and_the_order(sized: Any, ordered: bool) -> None:  # noqa: FBT001 -- an example's
    waiting = deque((in_group(n, group), size) for n, (size, group) in enumerate(sized))
    sizes = {id(one): size for one, size in waiting}
    sent: list[Letter] = []
    while waiting:
        batch = next_batch(waiting, ordered=ordered)
        assert 1 <= len(batch) <= letters.BATCH_ENTRIES
        assert sum(sizes[id(one)] for one in batch) <= letters.BATCH_BYTES
        if ordered:
            assert len({letters.group_of(one) for one in batch}) == len(batch)
        sent += batch

    numbers = {
        group: [int(one["Body"]) for one in sent if letters.group_of(one) == group]
        for group in "abc"
    }
    assert sum(map(len, numbers.values())) == len(sized)
    assert all(own == sorted(own) for own in numbers.values())
    if not ordered:
        assert [int(one["Body"]) for one in sent] == list(range(len(sized)))


def test_small_letters_fill_batches_of_ten() -> None:
    waiting = deque((letter(), 100) for _ in range(25))

    taken = [len(next_batch(waiting, ordered=False)) for _ in range(3)]

    assert (taken, len(waiting)) == ([10, 10, 5], 0)
