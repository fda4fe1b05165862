"""The deployed stack, as the command line reaches it: its outputs, its table, its clients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from oncall.errors import BadInput
from oncall.items import incident_from_item
from oncall.record import IncidentStore
from oncall.times import utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.incident import Incident

EMULATOR_REGION = "eu-west-1"
"""Where `runbook play` deploys unless a region is set."""
_CONFIG = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard"})
IMPATIENT = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1})
"""For what nobody waits for, such as completing a word."""


@dataclass(frozen=True)
class Deployed:
    """One deployed stack of runbooks."""

    stack: str
    profile: str | None = None
    region: str | None = None
    endpoint_url: str | None = None
    config: Config = _CONFIG

    @cached_property
    def session(self) -> boto3.Session:
        """The session; an emulator is spoken to with dummy credentials where there are none."""
        session = boto3.Session(profile_name=self.profile, region_name=self.region)
        if self.endpoint_url and not self.profile and session.get_credentials() is None:
            return boto3.Session(
                aws_access_key_id="123456789012",
                aws_secret_access_key="test",  # noqa: S106 -- a dummy, for emulators alone
                region_name=session.region_name or EMULATOR_REGION,
            )
        return session

    def client(self, service: str) -> Any:
        """Return a client of an AWS service."""
        return self.session.client(service, endpoint_url=self.endpoint_url, config=self.config)  # type: ignore[call-overload]  # any service

    @cached_property
    def outputs(self) -> Mapping[str, str]:
        """The stack's outputs. Raises ``BadInput`` where there is no such stack."""
        client = self.client("cloudformation")
        try:
            stacks = client.describe_stacks(StackName=self.stack)["Stacks"]
        except ClientError as error:
            # CloudFormation DescribeStacks: "Stack with id … does not exist" is a ValidationError.
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            raise BadInput(
                f"--stack: there is no stack {self.stack!r} in {client.meta.region_name}. Give "
                f"its name and region, for example --stack runbooks --region eu-west-1."
            ) from error
        outputs = {one["OutputKey"]: one["OutputValue"] for one in stacks[0].get("Outputs", [])}
        if "IncidentsTable" not in outputs:
            raise BadInput(
                f"--stack: {self.stack!r} is not a stack of runbooks. "
                f"Give for example --stack runbooks."
            )
        return outputs

    @cached_property
    def store(self) -> IncidentStore:
        """The incidents, as the functions read them."""
        resource = self.session.resource(
            "dynamodb", endpoint_url=self.endpoint_url, config=self.config
        )
        return IncidentStore(resource.Table(self.outputs["IncidentsTable"]), utc_now)

    def open_incidents(self) -> list[Incident]:
        """Read the open incidents without entries and changes, the latest first."""
        found = [incident_from_item(row) for row in self.store.opened("incident")]
        return sorted(found, key=lambda incident: incident.started_at, reverse=True)

    def machine(self, runbook: str) -> str:
        """Return the ARN of a runbook's machine. Raises ``BadInput`` if it is not deployed."""
        arn = self.machine_if_any(runbook)
        if arn is None:
            raise BadInput(
                f"runbook: {runbook!r} is not deployed in the stack {self.stack}; "
                f"`runbook list --runbooks` shows which are."
            )
        return arn

    def machine_if_any(self, runbook: str) -> str | None:
        """Return the ARN of a runbook's machine; ``None`` if it is not deployed."""
        return self.outputs.get("".join(map(str.capitalize, runbook.split("-"))) + "Machine")

    def caller(self) -> str:
        """Return the ARN of whoever asks, as AWS sees them."""
        return str(self.client("sts").get_caller_identity()["Arn"])
