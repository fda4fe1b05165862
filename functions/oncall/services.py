"""What a step talks to: settings from the environment and AWS clients, made once a container."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Literal, overload

import boto3
from botocore.config import Config

from oncall.record import IncidentStore
from oncall.times import Clock, utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_cloudwatch.client import CloudWatchClient
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_ecs.client import ECSClient
    from mypy_boto3_iam.client import IAMClient
    from mypy_boto3_lambda.client import LambdaClient
    from mypy_boto3_rds.client import RDSClient
    from mypy_boto3_resourcegroupstaggingapi.client import ResourceGroupsTaggingAPIClient
    from mypy_boto3_route53.client import Route53Client
    from mypy_boto3_route53_recovery_cluster.client import Route53RecoveryClusterClient
    from mypy_boto3_route53_recovery_control_config.client import (
        Route53RecoveryControlConfigClient,
    )
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_secretsmanager.client import SecretsManagerClient
    from mypy_boto3_sns.client import SNSClient
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_ssm.client import SSMClient
    from mypy_boto3_stepfunctions.client import SFNClient

# One layer of retries with backoff and jitter; a step's own time is bounded by its TimeoutSeconds.
_CONFIG = Config(
    connect_timeout=3,
    read_timeout=10,
    retries={"mode": "standard", "total_max_attempts": 4},
)
# Of calls that a Region or a control plane may not answer: two tries, 12 s at the longest.
_IMPATIENT = Config(
    connect_timeout=2,
    read_timeout=4,
    retries={"mode": "standard", "total_max_attempts": 2},
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
    name_servers: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Host and port by name, of zones whose name servers no resolver tells."""

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
            name_servers=_addresses(names.get("NAME_SERVERS", "")),
        )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _addresses(text: str) -> dict[str, tuple[str, int]]:
    """Read ``ns-1=127.0.0.1:5301,…``."""
    found: dict[str, tuple[str, int]] = {}
    for one in _words(text):
        name, _, where = one.partition("=")
        host, _, port = where.rpartition(":")
        found[name] = (host, int(port))
    return found


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
        self._config = _CONFIG
        self._region: str | None = None
        self._there: dict[str, Services] = {}
        self._one_at_a_time = Lock()  # making clients is not for several threads at once

    def within(self, region: str) -> Services:
        """Return services whose clients are of another Region and do not wait long for it.

        They have the same role and no incidents table to write to.
        """
        with self._one_at_a_time:
            if region not in self._there:
                there = Services(replace(self.settings, region=region), self.session, self.clock)
                there._config, there._region = _IMPATIENT, region
                self._there[region] = there
            return self._there[region]

    def cluster(self, region: str, endpoint: str) -> Route53RecoveryClusterClient:
        """Return a client of a routing control cluster's endpoint in a Region."""
        key = f"cluster {endpoint}"
        with self._one_at_a_time:
            if key not in self._clients:
                self._clients[key] = self.session.client(
                    "route53-recovery-cluster",
                    region_name=region,
                    endpoint_url=endpoint,
                    config=_IMPATIENT,
                )
            found: Route53RecoveryClusterClient = self._clients[key]  # type: ignore[assignment]  # by its key
            return found

    @cached_property
    def store(self) -> IncidentStore:
        """The incidents table."""
        resource = self.session.resource("dynamodb", config=_CONFIG)
        return IncidentStore(resource.Table(self.settings.table), self.clock)

    @overload
    def client(self, name: Literal["cloudwatch"]) -> CloudWatchClient: ...
    @overload
    def client(self, name: Literal["dynamodb"]) -> DynamoDBClient: ...
    @overload
    def client(self, name: Literal["ecs"]) -> ECSClient: ...
    @overload
    def client(self, name: Literal["iam"]) -> IAMClient: ...
    @overload
    def client(self, name: Literal["lambda"], region: str = ...) -> LambdaClient: ...
    @overload
    def client(self, name: Literal["rds"]) -> RDSClient: ...
    @overload
    def client(
        self, name: Literal["resourcegroupstaggingapi"]
    ) -> ResourceGroupsTaggingAPIClient: ...
    @overload
    def client(self, name: Literal["route53"]) -> Route53Client: ...
    @overload
    def client(
        self, name: Literal["route53-recovery-control-config"], region: str
    ) -> Route53RecoveryControlConfigClient: ...
    @overload
    def client(self, name: Literal["s3"]) -> S3Client: ...
    @overload
    def client(self, name: Literal["secretsmanager"]) -> SecretsManagerClient: ...
    @overload
    def client(self, name: Literal["sns"]) -> SNSClient: ...
    @overload
    def client(self, name: Literal["sqs"], region: str = ...) -> SQSClient: ...
    @overload
    def client(self, name: Literal["ssm"]) -> SSMClient: ...
    @overload
    def client(self, name: Literal["stepfunctions"]) -> SFNClient: ...
    def client(self, name: str, region: str = "") -> object:
        """Return the client of an AWS service, in its own Region unless another is given."""
        where = self._region if region in {"", self.settings.region} else region
        key = f"{name} {where}" if where else name
        with self._one_at_a_time:
            if key not in self._clients:
                self._clients[key] = self.session.client(  # type: ignore[call-overload]  # the overloads above name what there is
                    name, region_name=where, config=self._config
                )
            return self._clients[key]
