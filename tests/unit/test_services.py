"""Where the clients of a step go."""

from typing import Any

import boto3
import pytest

from oncall.services import Services, Settings

SETTINGS = Settings(
    table="incidents",
    stack="runbooks",
    kill_switch="/runbooks/kill-switch",
    period_seconds=60,
    calendars=(),
    runs_per_hour=20,
    approvers=(),
    account_floor=100,
    region="eu-west-1",
)
CLIENTS = (
    *("cloudwatch", "dynamodb", "ecs", "lambda", "rds", "route53", "s3", "secretsmanager"),
    *("sqs", "ssm", "stepfunctions"),
)


def address(name: str) -> str:
    session = boto3.Session(
        aws_access_key_id="1", aws_secret_access_key="2", region_name="eu-west-1"
    )
    services: Any = Services(SETTINGS, session)
    return str(services.client(name).meta.endpoint_url)


@pytest.mark.parametrize("name", CLIENTS)
def test_an_empty_endpoint_is_aws_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the template has it, so that `sam local` can override it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "")
    assert address(name).endswith(".amazonaws.com")

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:4566")
    assert address(name) == "http://127.0.0.1:4566"
