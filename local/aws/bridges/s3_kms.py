"""Gap of S3: an object is encrypted and read with a KMS key that its caller may not use.

AWS: to put an object that the bucket encrypts with a KMS key, its caller needs kms:GenerateDataKey
on the key, to get it kms:Decrypt, for a multipart upload both; S3 asks KMS in the caller's name, so
`kms:ViaService` is s3.<region>.amazonaws.com
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html,
https://docs.aws.amazon.com/kms/latest/developerguide/conditions-kms.html#conditions-kms-via-service).
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

from typing import Any

from ministack.core.responses import get_account_id, get_region
from ministack.services import s3

from local.aws.bridges import caller
from local.aws.bridges.bridge import Bridge

BRIDGE = Bridge("s3_kms")
_KEY = "x-amz-server-side-encryption-aws-kms-key-id"


@BRIDGE.replace(s3, "_put_object")
def _put_object(bucket: str, key: str, body: bytes, headers: dict[str, str]) -> Any:
    return _refused(_write_key(bucket, headers), "GenerateDataKey") or _put(
        bucket, key, body, headers
    )


@BRIDGE.replace(s3, "_create_multipart_upload")
def _create_multipart_upload(bucket: str, key: str, headers: dict[str, str]) -> Any:
    master = _write_key(bucket, headers)
    return (
        _refused(master, "GenerateDataKey")
        or _refused(master, "Decrypt")
        or _create(bucket, key, headers)
    )


@BRIDGE.replace(s3, "_get_object")
def _get_object(
    bucket: str, key: str, headers: dict[str, str], query: dict[str, Any] | None = None
) -> Any:
    stored = (s3._ensure_bucket(bucket) or {"objects": {}})["objects"].get(key) or {}
    master = s3._stored_sse_headers(stored).get(_KEY, "")
    return _refused(master, "Decrypt") or _get(bucket, key, headers, query)


def _write_key(bucket: str, headers: dict[str, str]) -> str:
    applied, error = s3._resolve_sse_write_headers(headers, bucket)
    return "" if error else str(applied.get(_KEY, ""))


def _refused(master: str, operation: str) -> Any:
    if master and not master.startswith("arn:"):
        master = f"arn:aws:kms:{get_region()}:{get_account_id()}:key/{master}"
    via = {"kms:ViaService": f"s3.{get_region()}.amazonaws.com"}
    if not master or caller.may("s3", f"kms:{operation}", master, via, operation=operation):
        return None
    return s3._error(
        "AccessDenied",
        f"User: {caller.arn()} is not authorized to perform: kms:{operation} on resource: {master} "
        f"because no identity-based policy allows the kms:{operation} action",
        403,
    )


_put = BRIDGE.original(s3, "_put_object")
_create = BRIDGE.original(s3, "_create_multipart_upload")
_get = BRIDGE.original(s3, "_get_object")
