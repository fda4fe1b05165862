"""A queue elsewhere: what is read of it, what is not, and who may be sent to."""

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from oncall import elsewhere_facts
from oncall.errors import GuardRefused
from oncall.replays import Consumer

THERE = "arn:aws:sqs:eu-central-1:310000000001:orders"
ATTRIBUTES = {
    "MaximumMessageSize": "1024",
    "ApproximateNumberOfMessages": "3",
    "ApproximateNumberOfMessagesNotVisible": "2",
}


def aws(*listed: str, url: str = "", attributes: str = "") -> Any:
    """Return services; ``url`` and ``attributes`` are codes with which SQS refuses these calls."""

    def get_queue_url(**given: str) -> dict[str, str]:
        assert given == {"QueueName": "orders", "QueueOwnerAWSAccountId": "310000000001"}
        if url:
            raise ClientError({"Error": {"Code": url, "Message": ""}}, "GetQueueUrl")
        return {"QueueUrl": "https://there"}

    def get_queue_attributes(**given: Any) -> dict[str, Any]:
        assert given["QueueUrl"] == "https://there"
        if attributes:
            raise ClientError({"Error": {"Code": attributes, "Message": ""}}, "GetQueueAttributes")
        return {"Attributes": ATTRIBUTES}

    def client(name: str, region: str) -> Any:
        assert (name, region) == ("sqs", "eu-central-1")
        return SimpleNamespace(
            get_queue_url=get_queue_url, get_queue_attributes=get_queue_attributes
        )

    return SimpleNamespace(client=client, settings=SimpleNamespace(replay_destinations=listed))


def test_one_that_is_listed_is_read_in_its_region_and_account() -> None:
    found = elsewhere_facts.destination(aws(THERE), THERE)
    assert found == {
        "destination": THERE,
        "destination_opted_in": True,
        "destination_trouble": "",
        "destination_fifo": False,
        "destination_max_bytes": 1024,
    }
    assert elsewhere_facts.consumer(aws(THERE), THERE) == Consumer(backlog=5)


def test_nothing_is_asked_of_one_that_is_not_listed_nor_sent_to_it() -> None:
    silent: Any = SimpleNamespace(settings=SimpleNamespace(replay_destinations=(f"{THERE}-2",)))
    assert elsewhere_facts.destination(silent, THERE)["destination_opted_in"] is False
    assert elsewhere_facts.consumer(silent, THERE) is None
    with pytest.raises(GuardRefused, match="not among the stack's ReplayDestinations"):
        elsewhere_facts.check_listed(silent, THERE)
    elsewhere_facts.check_listed(aws(THERE), THERE)


def test_what_its_owner_does_not_show_is_unknown() -> None:
    blind = aws(THERE, attributes="AccessDenied")
    assert elsewhere_facts.consumer(blind, THERE) is None
    assert elsewhere_facts.destination(blind, THERE)["destination_max_bytes"] == 1_048_576


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AWS.SimpleQueueService.NonExistentQueue", "There is no queue orders"),
        ("AccessDenied", "denies access"),
    ],
)
def test_one_that_cannot_be_found_is_said_to_be(code: str, words: str) -> None:
    found = elsewhere_facts.destination(aws(THERE, url=code), THERE)
    assert words in found["destination_trouble"]
    assert found["destination_opted_in"] is False


def test_any_other_error_is_raised() -> None:
    with pytest.raises(ClientError):
        elsewhere_facts.destination(aws(THERE, url="ServiceUnavailable"), THERE)
    with pytest.raises(ClientError):
        elsewhere_facts.consumer(aws(THERE, attributes="ServiceUnavailable"), THERE)
