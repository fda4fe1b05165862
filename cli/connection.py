"""The deployed stack, as the command line reaches it: its outputs, its table, its clients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any

import boto3
import click
from boto3.dynamodb.conditions import Attr
from botocore.exceptions import ClientError

from oncall.errors import BadInput
from oncall.items import incident_from_item
from oncall.record import IncidentStore
from oncall.times import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mypy_boto3_dynamodb.service_resource import Table

    from oncall.incident import Incident

EMULATOR_REGION = "eu-west-1"
"""Where `runbook play` deploys unless a region is set."""


@dataclass(frozen=True)
class Deployed:
    """One deployed stack of runbooks."""

    stack: str
    profile: str | None = None
    region: str | None = None
    endpoint_url: str | None = None

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

    @cached_property
    def outputs(self) -> Mapping[str, str]:
        """The stack's outputs. Raises ``BadInput`` where there is no such stack."""
        client = self.session.client("cloudformation", endpoint_url=self.endpoint_url)
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
        return IncidentStore(self._table, utc_now)

    def incidents(self) -> list[Incident]:
        """Read every incident without entries and changes, the latest first."""
        found: list[Incident] = []
        start: dict[str, Any] = {}
        while True:
            page = self._table.scan(FilterExpression=Attr("type").eq("incident"), **start)
            found += [incident_from_item(item) for item in page["Items"]]
            if "LastEvaluatedKey" not in page:
                return sorted(found, key=lambda incident: incident.started_at, reverse=True)
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def machine(self, runbook: str) -> str:
        """Return the ARN of a runbook's machine. Raises ``BadInput`` if it is not deployed."""
        arn = self.outputs.get("".join(map(str.capitalize, runbook.split("-"))) + "Machine")
        if arn is None:
            raise BadInput(f"runbook: {runbook!r} is not deployed in the stack {self.stack}.")
        return arn

    def caller(self) -> str:
        """Return the ARN of whoever asks, as AWS sees them."""
        sts = self.session.client("sts", endpoint_url=self.endpoint_url)
        return sts.get_caller_identity()["Arn"]

    @cached_property
    def _table(self) -> Table:
        resource = self.session.resource("dynamodb", endpoint_url=self.endpoint_url)
        return resource.Table(self.outputs["IncidentsTable"])


def on_stack(command: Callable[..., object]) -> Callable[..., object]:
    """Give a command the options that find the stack, and ``deployed`` as its first argument."""

    @click.option("--stack", default="runbooks", show_default=True, help="Name of the stack.")
    @click.option("--profile", help="Profile of the AWS configuration.")
    @click.option("--region", help="AWS region.")
    @click.option("--endpoint-url", envvar="AWS_ENDPOINT_URL", help="An emulator's address.")
    @click.option(
        "--output", type=click.Choice(["table", "json"]), default="table", show_default=True
    )
    @wraps(command)
    def with_stack(
        stack: str,
        profile: str | None,
        region: str | None,
        endpoint_url: str | None,
        **others: object,
    ) -> object:
        return command(Deployed(stack, profile, region, endpoint_url), **others)

    return with_stack
