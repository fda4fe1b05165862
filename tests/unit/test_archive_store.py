"""The archive's bucket: written once, and what S3 says told in the mover's words."""

from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

from oncall.archive import Taken
from oncall.archive_store import BucketStore
from oncall.sqs_wire import Refused, Throttled, Unreachable


class FakeS3:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.put: list[dict[str, Any]] = []

    def put_object(self, **given: Any) -> None:
        if self.error is not None:
            raise self.error
        self.put.append(given)


def store(error: Exception | None = None) -> tuple[BucketStore, FakeS3]:
    client: Any = FakeS3(error)
    return BucketStore(client, "archive"), client


def test_nothing_is_written_over_what_is_there() -> None:
    bucket, client = store()
    bucket.put("a", b"1")
    assert client.put == [{"Bucket": "archive", "Key": "a", "Body": b"1", "IfNoneMatch": "*"}]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("PreconditionFailed", Taken),
        ("ConditionalRequestConflict", Throttled),
        ("SlowDown", Throttled),
        ("AccessDenied", Refused),
        ("NoSuchBucket", Refused),
    ],
)
def test_what_s3_answers_is_told_apart(code: str, error: type[Exception]) -> None:
    answer = ClientError({"Error": {"Code": code, "Message": code}}, "PutObject")
    with pytest.raises(error):
        store(answer)[0].put("a", b"1")


def test_no_answer_leaves_it_open() -> None:
    with pytest.raises(Unreachable):
        store(ConnectTimeoutError(endpoint_url="https://s3"))[0].put("a", b"1")
