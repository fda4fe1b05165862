"""A whole production on a laptop: embedded AWS, fake Slack and PagerDuty, the real templates.

Used by ``runbook play``, ``make demo`` and the scenario tests alike: what they see is what the
templates deploy, with every Lambda's role enforced.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from local.aws import EmbeddedAws
from local.aws.cloudwatch import CloudWatch, Settings
from local.aws.route53.data_plane import Route53DataPlane
from local.pagerduty import FakePagerDuty
from local.shop import Shop
from local.slack import FakeSlack
from oncall.record import IncidentStore
from oncall.times import utc_now
from workload.load import Api, LoadGenerator, Pilot

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from local.aws.launcher import AwsAccount

ROOT = Path(__file__).parent.parent
REGION = "eu-west-1"
STACK = "runbooks"
CHANNEL = "C0ONCALL"
APPROVERS = ("U0ALICE", "U0BOB")
IAM_APPROVER = "arn:aws:iam::123456789012:user/carol"

FAST: Mapping[str, str] = {
    "PeriodSeconds": "1",
    "AnswerWithinSeconds": "60",
    "Approvers": ",".join((*APPROVERS, IAM_APPROVER)),
    "ReconcileGraceSeconds": "0",
}
"""What the laptop sets otherwise than production: looks every second instead of every minute."""

PILOT: Mapping[str, str] = {
    "AlarmPeriodSeconds": "1",
    "BacklogThreshold": "200",
    "SettingsCacheSeconds": "1",
}


@dataclass
class Playground:
    """Everything that a story needs; ``with Playground() as ground: ...``.

    ``parameters`` and ``pilot_parameters`` override template parameters. ``aws`` is the account to
    live in, so that several can share an emulator; one is started when none is given.
    """

    parameters: Mapping[str, str] = field(default_factory=dict)
    pilot_parameters: Mapping[str, str] = field(default_factory=dict)
    aws: AwsAccount | None = None
    slack_rate: float = 20.0
    cloudwatch: CloudWatch = field(default_factory=lambda: CloudWatch(Settings(1)))
    route53: Route53DataPlane = field(default_factory=lambda: Route53DataPlane(interval_seconds=1))

    def __enter__(self) -> Self:
        """Start the servers and deploy both stacks."""
        self._stack = ExitStack()
        if self.aws is None:
            self.aws = self._stack.enter_context(
                EmbeddedAws(region=REGION, extensions=(self.cloudwatch, self.route53))
            )
        self.slack = self._stack.enter_context(
            FakeSlack(channels={CHANNEL: "oncall"}, rate=self.slack_rate, updates_per_minute=600)
        )
        self.pagerduty = self._stack.enter_context(FakePagerDuty())
        self.outputs = self.aws.deploy(
            STACK, ROOT / "template.yaml", {**FAST, **self._channels(), **self.parameters}
        )
        self.pilot_outputs = self.aws.deploy(
            "orders", ROOT / "workload" / "template.yaml", {**PILOT, **self.pilot_parameters}
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything that was started."""
        self._stack.__exit__(kind, error, trace)

    @cached_property
    def pilot(self) -> Pilot:
        """The names of the protected system."""
        return Pilot.from_outputs(self.pilot_outputs)

    @cached_property
    def shop(self) -> Shop:
        """A service in two Regions, made at first use; ``route53`` has to run in this process."""
        found = self.route53.name_servers(self.account.account)
        servers = {name.rstrip("."): server.address for name, server in found.items()}
        return self._stack.enter_context(Shop(self.account, STACK, servers))

    @cached_property
    def store(self) -> IncidentStore:
        """The incidents table, read as the functions read it."""
        resource = self.account.session().resource("dynamodb")
        return IncidentStore(resource.Table(self.outputs["IncidentsTable"]), utc_now)

    @property
    def account(self) -> AwsAccount:
        """The account that it lives in, once it is open."""
        assert self.aws is not None  # noqa: S101 -- set by __enter__
        return self.aws

    def load(self, **options: Any) -> LoadGenerator:
        """Return a load generator against the pilot."""
        return LoadGenerator(
            self.pilot,
            sqs=self.account.client("sqs"),
            ssm=self.account.client("ssm"),
            api=Api(
                self.pilot.api_url, self.account.session().get_credentials(), self.account.region
            ),
            **options,
        )

    def _channels(self) -> dict[str, str]:
        tokens = {"bot_token": self.slack.bot_token, "signing_secret": self.slack.signing_secret}
        key = {"routing_key": self.pagerduty.routing_key}
        return {
            "SlackSecretArn": self._secret("slack", tokens),
            "SlackChannel": CHANNEL,
            "SlackApiUrl": self.slack.base_url,
            "PagerDutySecretArn": self._secret("pagerduty", key),
            "PagerDutyEventsUrl": self.pagerduty.base_url,
        }

    def _secret(self, name: str, value: Mapping[str, str]) -> str:
        """Store a secret, over an earlier one on an emulator that runs on; return its ARN."""
        secrets = self.account.client("secretsmanager")
        text = json.dumps(value)
        try:
            return secrets.create_secret(Name=name, SecretString=text)["ARN"]
        except secrets.exceptions.ResourceExistsException:
            return secrets.put_secret_value(SecretId=name, SecretString=text)["ARN"]
