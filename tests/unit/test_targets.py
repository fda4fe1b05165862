"""Targets: a name, URL or ARN leads to the one queue that is meant, or to a sentence."""

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from oncall import targets
from oncall.errors import BadInput
from tests.unit.world import ACCOUNT, FUNCTION, OPTED_IN, QUEUE, a_world, refused

HERE = {"partition": "aws", "region": "us-east-1", "account": ACCOUNT}
URL = f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/orders"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("orders", "orders"),
        ("orders.fifo", "orders.fifo"),
        (QUEUE, "orders"),
        (f"{QUEUE}.fifo", "orders.fifo"),
        ("arn:aws-us-gov:sqs:us-gov-west-1:123456789012:orders", "orders"),
        (URL, "orders"),
        (f"{URL}.fifo", "orders.fifo"),
        (f"http://127.0.0.1:4566/{ACCOUNT}/orders", "orders"),
        (
            "https://sqs.us-east-1.amazonaws.com/12/orders",
            "https://sqs.us-east-1.amazonaws.com/12/orders",
        ),
    ],
)
def test_a_queues_name_is_read_from_name_url_and_arn(text: str, name: str) -> None:
    assert targets.queue_name(text) == name


@pytest.mark.parametrize("text", ["orders", URL, QUEUE])
def test_a_queues_arn_is_made_from_any(text: str) -> None:
    assert targets.arn_of("queue", text, **HERE) == QUEUE


def test_another_partition_shows_in_the_arn() -> None:
    there = {"partition": "aws-cn", "region": "cn-north-1", "account": ACCOUNT}
    assert (
        targets.arn_of("queue", "orders", **there) == f"arn:aws-cn:sqs:cn-north-1:{ACCOUNT}:orders"
    )


@pytest.mark.parametrize(
    "text",
    ["worker", "worker:live", "worker:$LATEST", FUNCTION, f"{FUNCTION}:live", f"{FUNCTION}:7"],
)
def test_a_functions_arn_has_neither_version_nor_alias(text: str) -> None:
    assert targets.arn_of("function", text, **HERE) == FUNCTION
    assert targets.function_name(text) == "worker"


def test_a_kind_that_is_not_known_has_to_be_given_by_its_arn() -> None:
    assert targets.arn_of("table", "arn:aws:dynamodb:x", **HERE) == "arn:aws:dynamodb:x"
    with pytest.raises(BadInput, match="table: a target of this kind has to be given by its ARN"):
        targets.arn_of("table", "orders", **HERE)


@pytest.mark.parametrize("text", ["worker", FUNCTION, f"{FUNCTION}:live"])
def test_a_function_is_found_with_its_tags(text: str) -> None:
    world = a_world()
    found = targets.resolve(world.aws, "function", text)
    assert found == targets.Target(arn=FUNCTION, name="worker", tags=OPTED_IN)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("other", "function: there is no function 'other' in us-east-1."),
        (
            f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:worker",
            "is in eu-west-1, and this runbook acts in us-east-1. Run the one that is deployed in",
        ),
        (
            "arn:aws:lambda:us-east-1:999999999999:function:worker",
            "is in account 999999999999; this runbook acts in its own.",
        ),
    ],
)
def test_a_function_that_is_not_here_is_told_with_an_example(text: str, says: str) -> None:
    with pytest.raises(BadInput) as bad:
        targets.resolve(a_world().aws, "function", text)
    assert says in str(bad.value)
    assert '{"function": "' in str(bad.value)


@given(name=st.from_regex(r"[A-Za-z0-9_-]{1,80}(\.fifo)?", fullmatch=True))
def test_each_spelling_means_the_same_queue(name: str) -> None:
    arn = targets.arn_of("queue", name, **HERE)
    assert targets.queue_name(arn) == name
    assert targets.queue_name(f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/{name}") == name


@pytest.mark.parametrize("text", ["orders", URL, QUEUE, f"http://127.0.0.1:4566/{ACCOUNT}/orders"])
def test_a_queue_is_found_with_its_tags(text: str) -> None:
    world = a_world()
    found = targets.resolve(world.aws, "queue", text)
    assert found == targets.Target(arn=QUEUE, name="orders", tags=OPTED_IN)
    world.cloud.tags.clear()
    assert targets.resolve(world.aws, "queue", text).tags == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("other", "queue: there is no queue 'other' in us-east-1."),
        (
            f"arn:aws:sqs:eu-west-1:{ACCOUNT}:orders",
            "is in eu-west-1, and this runbook acts in us-east-1. Run the one that is deployed in",
        ),
        (
            "arn:aws:sqs:us-east-1:999999999999:orders",
            "is in account 999999999999; this runbook acts in its own.",
        ),
        (
            f"https://sqs.eu-west-1.amazonaws.com/{ACCOUNT}/orders",
            "is in eu-west-1, and this runbook acts in us-east-1.",
        ),
        (
            "https://sqs.us-east-1.amazonaws.com/999999999999/orders",
            "is in account 999999999999; this runbook acts in its own.",
        ),
    ],
)
def test_a_queue_that_is_not_here_is_told_with_an_example(text: str, says: str) -> None:
    with pytest.raises(BadInput) as bad:
        targets.resolve(a_world().aws, "queue", text)
    assert says in str(bad.value)
    assert '{"queue": "orders"}' in str(bad.value)


def test_what_else_goes_wrong_is_not_called_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()

    def denied(**_given: object) -> None:
        raise refused("AccessDenied")

    monkeypatch.setattr(world.aws.client("sqs"), "get_queue_url", denied, raising=False)
    with pytest.raises(ClientError):
        targets.resolve(world.aws, "queue", "orders")


def test_a_queues_url_is_found_by_its_arn() -> None:
    assert targets.queue_url(a_world().aws, QUEUE).endswith(f"/{ACCOUNT}/orders")
