"""Carry a payload that is too big for a message in S3, and a pointer to it on the queue.

The pointer and its message attribute are those of Amazon's SQS extended clients, so that every
tool which knows them moves such messages verbatim:
https://github.com/awslabs/amazon-sqs-python-extended-client-lib
"""

import json
from dataclasses import dataclass
from typing import Any

POINTER_CLASS = "software.amazon.payloadoffloading.PayloadS3Pointer"
SIZE_ATTRIBUTE = "ExtendedPayloadSize"


class BadPointerError(Exception):
    """A pointer that does not lead to the payload bucket."""


@dataclass(frozen=True)
class PayloadStore:
    """The bucket that holds big payloads."""

    s3: Any
    bucket: str

    def put(self, key: str, payload: bytes) -> dict[str, Any]:
        """Store the payload; returns the arguments of SendMessage that point to it."""
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=payload)
        size = {"DataType": "Number", "StringValue": str(len(payload))}
        return {
            "MessageBody": json.dumps([POINTER_CLASS, {"s3BucketName": self.bucket, "s3Key": key}]),
            "MessageAttributes": {SIZE_ATTRIBUTE: size},
        }

    def get(self, pointer: list[Any]) -> str:
        """Return the payload behind `[class, {"s3BucketName", "s3Key"}]`.

        Raises BadPointerError for any other bucket: a message must not choose what is read.
        """
        match pointer:
            case [str(name), {"s3BucketName": bucket, "s3Key": str(key)}] if (
                name == POINTER_CLASS and bucket == self.bucket
            ):
                payload: bytes = self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
                return payload.decode()
        raise BadPointerError(f"The pointer does not lead to a payload in {self.bucket}.")
