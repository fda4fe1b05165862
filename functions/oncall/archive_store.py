"""The archive's bucket: chunks and ledgers in S3, written once and never over what is there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from oncall.archive import Taken
from oncall.sqs_wire import Refused, Throttled, Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_s3.client import S3Client

    from oncall.services import Services

_BUSY = frozenset(
    {
        "SlowDown",
        "ServiceUnavailable",
        "InternalError",
        "ThrottlingException",
        # Another write of the key was under way: this one has not been made, and may be tried again
        # (S3 User Guide, "How to prevent object overwrites with conditional writes").
        "ConditionalRequestConflict",
    }
)
_THERE = "PreconditionFailed"


class BucketStore:
    """Chunks and ledgers in a bucket, for ``mover.Archive`` and ``archive.Store``."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def put(self, key: str, data: bytes) -> None:
        """Write what is not there yet (S3 ``PutObject`` with ``If-None-Match``).

        Raises ``Taken``, ``Throttled``, ``Unreachable`` or ``Refused``.
        """
        try:
            self._client.put_object(Bucket=self._bucket, Key=key, Body=data, IfNoneMatch="*")
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == _THERE:
                raise Taken(key) from error
            if code in _BUSY:
                raise Throttled(str(error)) from error
            raise Refused(code, str(error)) from error
        except BotoCoreError as error:
            raise Unreachable(str(error)) from error

    def keys(self, prefix: str) -> Iterator[str]:
        """Return the keys that begin so, in the order of their bytes."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix
        )
        for page in pages:
            yield from (one["Key"] for one in page.get("Contents", []))

    def get(self, key: str) -> bytes:
        """Return an object's content."""
        return self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()


def bucket_store(aws: Services) -> BucketStore:
    """Return the store in the bucket that the template names. Raises ``KeyError`` without one."""
    return BucketStore(aws.client("s3"), os.environ["ARCHIVE_BUCKET"])
