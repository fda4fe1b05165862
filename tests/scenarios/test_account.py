"""Dead letters lie in a queue as SQS has them, and the account of them finds what is wrong."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from ministack.core.responses import request_scope
from ministack.services import sqs

from local.aws import bridges  # noqa: F401 -- SQS as the stories meet it
from oncall.archive import Archived
from oncall.letters import MARK, Destination, Rules, Sorting
from oncall.replays import kind_of
from tests.scenarios.account import account
from tests.scenarios.targets.mail import Mail, Seen

_ACCOUNT, _REGION = "210987654321", "eu-west-1"
_RUN = "run-1"
_SORTING = Sorting(_RUN, Destination(fifo=False, max_message_bytes=1_048_576), Rules(), 3)

type Json = dict[str, Any]


def _queue(name: str) -> str:
    sqs._act_create_queue({"QueueName": name}, "")
    return f"arn:aws:sqs:{_REGION}:{_ACCOUNT}:{name}"


@pytest.fixture
def mail() -> Iterator[Mail]:
    with request_scope(_ACCOUNT, _REGION):
        mail = Mail(_queue("orders-dlq"), [_queue("orders")])
        yield mail
        for arn in (mail.dlq, *mail.sources):
            sqs._act_delete_queue({"QueueUrl": mail.queue(arn)["url"]}, "")


def _receive(mail: Mail) -> list[Json]:
    """Receive every letter, as a worker does."""
    url = mail.queue(mail.dlq)["url"]
    asked = {
        "QueueUrl": url,
        "MaxNumberOfMessages": 10,
        "WaitTimeSeconds": 0,
        "MessageAttributeNames": ["All"],
        "MessageSystemAttributeNames": ["All"],
    }
    found: list[Json] = []
    while some := asyncio.run(sqs._act_receive_message(asked, url)).get("Messages"):
        found += some
    return found


@pytest.mark.parametrize("kind", ["queue", "function", "topic", "rule", "record", "unknown"])
def test_a_letter_is_what_the_story_says(mail: Mail, kind: str) -> None:
    mail.give([{"count": 1, "kind": kind}])
    [letter] = _receive(mail)
    assert kind_of(letter) == kind
    assert mail.secret in letter["Body"]


def test_a_letter_is_received_as_it_was_given(mail: Mail) -> None:
    mail.give(
        [
            {"bytes": 5000, "group": ["anna", "ben"], "count": 3},
            {"body": "no JSON", "bytes": 400, "replays": 2, "age_seconds": 90000},
            {"attributes": {"blob": {"binary": "AAEC"}, "price": 3, "name": "x"}},
        ]
    )
    received = _receive(mail)
    assert [mail.read(letter) for letter in received] == list(mail.dead.values())
    assert [len(letter["Body"]) for letter in received[:4]] == [5000, 5000, 5000, 400]
    assert [one["Attributes"].get("MessageGroupId") for one in received[:3]] == [
        "anna",
        "ben",
        "anna",
    ]
    assert received[3]["MessageAttributes"][MARK]["StringValue"].startswith("2;")
    judged = [_SORTING.judge(letter, 1e10)[0].then for letter in received]
    assert judged == ["replay"] * 5


def test_a_damaged_letter_is_one(mail: Mail) -> None:
    mail.give([{"damaged": True}])
    [letter] = _receive(mail)
    assert _SORTING.judge(letter, 0)[0].why == "damaged"


# What the account finds


def _replayed(mail: Mail) -> tuple[list[tuple[str, Seen]], list[Archived]]:
    """Return how six letters of two groups arrive, and their archive."""
    mail.give([{"count": 6, "group": ["anna", "ben"]}])
    letters = _receive(mail)
    arrived = []
    for number, letter in enumerate(letters):
        sent = {**letter, "MessageAttributes": _SORTING.entry(letter)["MessageAttributes"]}
        arrived.append((f"new-{number}", mail.read(sent)))
    return arrived, [Archived(letter, "replay", "") for letter in letters]


def test_all_is_well(mail: Mail) -> None:
    arrived, archived = _replayed(mail)
    assert account(mail, arrived, [], archived) == 0
    ids = list(mail.dead)
    assert account(mail, arrived[:4], ids[4:], archived) == 0
    kept = [*archived[:4], *(one._replace(then="quarantine") for one in archived[4:])]
    assert account(mail, arrived[:4], [], kept) == 0


def test_what_comes_back_is_there_once(mail: Mail) -> None:
    arrived, archived = _replayed(mail)
    mail.dead["new-5"] = arrived[5][1]
    mail.returned.add("new-5")
    assert account(mail, arrived, ["new-5"], archived) == 0


def test_what_is_sent_or_kept_twice_is_counted(mail: Mail) -> None:
    arrived, archived = _replayed(mail)
    assert account(mail, [*arrived, arrived[5]], [], archived) == 1
    assert account(mail, arrived, list(mail.dead)[:2], archived) == 2


def test_what_may_not_be_copied_is_in_no_archive(mail: Mail) -> None:
    marked, archived = _replayed(mail)
    arrived = [(key, replace(letter, mark="")) for key, letter in marked]
    assert account(mail, arrived, [], [], unarchived=True) == 0
    with pytest.raises(AssertionError, match="against the tag"):
        account(mail, arrived, [], archived, unarchived=True)
    with pytest.raises(AssertionError, match="lost"):
        account(mail, arrived[1:], [], [], unarchived=True)


type Wrong = Callable[[list[tuple[str, Seen]], list[Archived]], object]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda arrived, _: arrived.pop(), "lost"),
        (lambda arrived, _: arrived.insert(0, arrived.pop(2)), "out of order"),
        (lambda arrived, _: arrived.append(("x", replace(arrived[0][1], body="{}"))), "not what"),
        (
            lambda arrived, _: arrived.append(("x", replace(arrived[0][1], unmarked="{}"))),
            "not what",
        ),
        (
            lambda arrived, _: arrived.append(("x", replace(arrived[0][1], group="ben"))),
            "another group",
        ),
        (lambda arrived, _: arrived.append(("x", replace(arrived[0][1], mark=""))), "not marked"),
        (lambda _, archived: archived.pop(), "in no archive"),
        (lambda _, archived: archived[0].letter.update(Body="{}"), "as another letter"),
        (
            lambda _, archived: archived[0].letter["MessageAttributes"].pop("card"),
            "as another letter",
        ),
    ],
)
def test_what_is_wrong_is_found(mail: Mail, wrong: Wrong, said: str) -> None:
    arrived, archived = _replayed(mail)
    wrong(arrived, archived)
    with pytest.raises(AssertionError, match=said):
        account(mail, arrived, [], archived)
