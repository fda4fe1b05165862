"""Levers: the settings that runbooks may change, each readable, writable and told in words.

None of these APIs offers a conditional write, so compare-and-set is read, compare, write, read back
(``changes.py``); the window between read and write is some ten milliseconds and is said so in
``docs/decisions.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import ClientError

from oncall.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services


class Lever(Protocol):
    """One kind of setting."""

    id: str
    """Stands in the record: renaming one loses the leases that are out."""

    def read(self, aws: Services, resource: str) -> Any:
        """Return the value now; ``None`` where it is not set."""

    def write(self, aws: Services, resource: str, value: Any) -> None:
        """Set the value; ``None`` removes it."""

    def tags(self, aws: Services, resource: str) -> Mapping[str, str]:
        """Return the tags of what the setting belongs to."""

    def command(self, resource: str, value: Any) -> str:
        """Return the AWS CLI command that sets ``value`` by hand."""


class ReservedConcurrency:
    """A function's reserved concurrency (Lambda ``PutFunctionConcurrency``); resource: its ARN.

    "No reservation" is put back by ``DeleteFunctionConcurrency``: 0 would stop the function.
    """

    id = "reserved-concurrency"

    def read(self, aws: Services, resource: str) -> int | None:
        """Return the reservation; ``None`` where there is none."""
        answer = aws.client("lambda").get_function_concurrency(FunctionName=resource)
        return answer.get("ReservedConcurrentExecutions")

    def write(self, aws: Services, resource: str, value: int | None) -> None:
        """Reserve ``value`` concurrent executions, or drop the reservation."""
        if value is None:
            aws.client("lambda").delete_function_concurrency(FunctionName=resource)
        else:
            aws.client("lambda").put_function_concurrency(
                FunctionName=resource, ReservedConcurrentExecutions=value
            )

    def tags(self, aws: Services, resource: str) -> Mapping[str, str]:
        """Return the function's tags."""
        return aws.client("lambda").list_tags(Resource=resource)["Tags"]

    def command(self, resource: str, value: int | None) -> str:
        """Return the CLI command."""
        if value is None:
            return f"aws lambda delete-function-concurrency --function-name {resource}"
        return (
            f"aws lambda put-function-concurrency --function-name {resource} "
            f"--reserved-concurrent-executions {value}"
        )


class MappingConcurrency:
    """A mapping's ``ScalingConfig.MaximumConcurrency`` (2-1,000); resource: the mapping's ARN.

    An empty ``ScalingConfig`` removes the cap (Lambda ``UpdateEventSourceMapping``).
    """

    id = "mapping-concurrency"

    def read(self, aws: Services, resource: str) -> int | None:
        """Return the cap; ``None`` where there is none."""
        mapping = aws.client("lambda").get_event_source_mapping(UUID=_uuid(resource))
        return mapping.get("ScalingConfig", {}).get("MaximumConcurrency")

    def write(self, aws: Services, resource: str, value: int | None) -> None:
        """Set or remove the cap."""
        aws.client("lambda").update_event_source_mapping(
            UUID=_uuid(resource),
            ScalingConfig={} if value is None else {"MaximumConcurrency": value},
        )

    def tags(self, aws: Services, resource: str) -> Mapping[str, str]:
        """Return the mapping's tags."""
        return aws.client("lambda").list_tags(Resource=resource)["Tags"]

    def command(self, resource: str, value: int | None) -> str:
        """Return the CLI command."""
        config = "{}" if value is None else f"MaximumConcurrency={value}"
        return (
            f"aws lambda update-event-source-mapping --uuid {_uuid(resource)} "
            f"--scaling-config '{config}'"
        )


class MappingEnabled:
    """Whether a mapping polls (``Enabled``); resource: the mapping's ARN."""

    id = "mapping-enabled"

    def read(self, aws: Services, resource: str) -> bool:
        """Return whether the mapping polls or is about to."""
        mapping = aws.client("lambda").get_event_source_mapping(UUID=_uuid(resource))
        return mapping["State"] in {"Enabled", "Enabling", "Creating", "Updating"}

    def write(self, aws: Services, resource: str, value: bool) -> None:  # noqa: FBT001 -- a lever's value
        """Enable or disable the mapping."""
        aws.client("lambda").update_event_source_mapping(UUID=_uuid(resource), Enabled=value)

    def tags(self, aws: Services, resource: str) -> Mapping[str, str]:
        """Return the mapping's tags."""
        return aws.client("lambda").list_tags(Resource=resource)["Tags"]

    def command(self, resource: str, value: bool) -> str:  # noqa: FBT001 -- a lever's value
        """Return the CLI command."""
        flag = "--enabled" if value else "--no-enabled"
        return f"aws lambda update-event-source-mapping --uuid {_uuid(resource)} {flag}"


class BackPressure:
    """An SSM parameter that producers read to shed load; resource: the parameter's name."""

    id = "back-pressure"

    def read(self, aws: Services, resource: str) -> str:
        """Return the parameter's value. Raises ``NotFound``."""
        try:
            return aws.client("ssm").get_parameter(Name=resource)["Parameter"]["Value"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "ParameterNotFound":
                raise NotFound(f"There is no SSM parameter {resource}.") from error
            raise

    def write(self, aws: Services, resource: str, value: str) -> None:
        """Set the parameter."""
        aws.client("ssm").put_parameter(Name=resource, Value=value, Overwrite=True)

    def tags(self, aws: Services, resource: str) -> Mapping[str, str]:
        """Return the parameter's tags."""
        answer = aws.client("ssm").list_tags_for_resource(
            ResourceType="Parameter", ResourceId=resource
        )
        return {tag["Key"]: tag["Value"] for tag in answer["TagList"]}

    def command(self, resource: str, value: str) -> str:
        """Return the CLI command."""
        return f"aws ssm put-parameter --overwrite --name {resource} --value '{value}'"


def _uuid(mapping_arn: str) -> str:
    """Return the UUID at the end of ``arn:…:event-source-mapping:<uuid>``."""
    return mapping_arn.rsplit(":", 1)[-1]


LEVERS: Mapping[str, Lever] = {
    lever.id: lever
    for lever in (ReservedConcurrency(), MappingConcurrency(), MappingEnabled(), BackPressure())
}
