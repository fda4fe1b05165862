"""An emulator that another process runs, for stories that are not to start one of their own."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3

from local.aws import AwsAccount
from local.playground import REGION
from oncall.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

_AWS_HOSTS = ("amazonaws.com", "amazonaws.com.cn", "api.aws")


class RunningAws(AwsAccount):
    """An emulator that another process runs; the AWS_* variables have to point at it."""

    def __init__(self) -> None:
        self._session = boto3.Session()
        self.client = self._session.client
        self.region = str(self._session.region_name)
        self.account = self.client("sts").get_caller_identity()["Account"]

    @property
    def endpoint_url(self) -> str:
        """The address of every service."""
        return os.environ["AWS_ENDPOINT_URL"]


@contextmanager
def running_aws(endpoint_url: str) -> Iterator[RunningAws]:
    """Point this process at a running emulator, with dummy credentials.

    As long as it lasts every other AWS_* variable is gone, so that no client can reach the real
    AWS. Raises ``BadInput`` for an address that is AWS's own or none.
    """
    address = urlsplit(endpoint_url)
    if address.scheme not in {"http", "https"} or not address.hostname:
        raise BadInput(
            f"--endpoint-url: {endpoint_url!r} is no address. Give for example "
            f"--endpoint-url http://127.0.0.1:4566."
        )
    if address.hostname.endswith(_AWS_HOSTS):
        raise BadInput(
            "--endpoint-url: a story makes trouble, so it plays on an emulator and never on AWS. "
            "Give for example --endpoint-url http://127.0.0.1:4566."
        )
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    # MiniStack's access key is the account's number.
    key = before.get("AWS_ACCESS_KEY_ID", "")
    region = before.get("AWS_REGION") or before.get("AWS_DEFAULT_REGION") or REGION
    ours = {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": key if re.fullmatch(r"\d{12}", key) else "123456789012",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name in before:
        del os.environ[name]
    os.environ.update(ours)
    try:
        yield RunningAws()
    finally:
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update(before)
