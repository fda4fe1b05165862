"""What a step talks to: settings from the environment and AWS clients, made once a container."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, overload

import boto3
from botocore.config import Config

from oncall.record import IncidentStore
from oncall.times import Clock, utc_now

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.client import CloudWatchClient
    from mypy_boto3_lambda.client import LambdaClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_secretsmanager.client import SecretsManagerClient
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_ssm.client import SSMClient
    from mypy_boto3_stepfunctions.client import SFNClient

# One layer of retries with backoff and jitter; a step's own time is bounded by its TimeoutSeconds.
_CONFIG = Config(
    connect_timeout=3,
    read_timeout=10,
    retries={"mode": "standard", "total_max_attempts": 4},
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the template tells a function through its environment."""

    table: str
    stack: str
    kill_switch: str
    """Path of the kill switches: ``<path>/all`` and ``<path>/<runbook>``."""
    period_seconds: int
    """Seconds between two looks at the metrics, and the metrics' period."""
    calendars: tuple[str, ...]
    runs_per_hour: int
    approvers: tuple[str, ...]
    account_floor: int
    region: str
    replay_destinations: tuple[str, ...] = ()
    """ARNs of queues in other accounts or Regions that dead letters may be sent to."""

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the settings. Raises ``KeyError`` for a function that lacks one it always has."""
        names = os.environ
        return cls(
            table=names["INCIDENTS_TABLE"],
            stack=names["STACK_NAME"],
            kill_switch=names["KILL_SWITCH_PATH"],
            period_seconds=int(names["PERIOD_SECONDS"]),
            calendars=_words(names.get("CHANGE_CALENDARS", "")),
            runs_per_hour=int(names["RUNS_PER_HOUR"]),
            approvers=_words(names.get("APPROVERS", "")),
            account_floor=int(names["ACCOUNT_CONCURRENCY_FLOOR"]),
            region=names["AWS_REGION"],
            replay_destinations=_words(names.get("REPLAY_DESTINATIONS", "")),
        )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


class Services:
    """AWS clients, the store and the clock; handed to steps as an argument."""

    def __init__(
        self,
        settings: Settings,
        session: boto3.session.Session | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.session = session or boto3.session.Session()
        self._clients: dict[str, object] = {}

    @cached_property
    def store(self) -> IncidentStore:
        """The incidents table."""
        resource = self.session.resource("dynamodb", config=_CONFIG)
        return IncidentStore(resource.Table(self.settings.table), self.clock)

    @overload
    def client(self, name: Literal["cloudwatch"]) -> CloudWatchClient: ...
    @overload
    def client(self, name: Literal["lambda"]) -> LambdaClient: ...
    @overload
    def client(self, name: Literal["s3"]) -> S3Client: ...
    @overload
    def client(self, name: Literal["secretsmanager"]) -> SecretsManagerClient: ...
    @overload
    def client(self, name: Literal["sqs"], region: str = ...) -> SQSClient: ...
    @overload
    def client(self, name: Literal["ssm"]) -> SSMClient: ...
    @overload
    def client(self, name: Literal["stepfunctions"]) -> SFNClient: ...
    def client(self, name: str, region: str = "") -> object:
        """Return the client of an AWS service, in its own Region unless another is given."""
        where = None if region in {"", self.settings.region} else region
        key = f"{name} {where}" if where else name
        if key not in self._clients:
            self._clients[key] = self.session.client(  # type: ignore[call-overload]  # the overloads above name what there is
                name, region_name=where, config=_CONFIG
            )
        return self._clients[key]
