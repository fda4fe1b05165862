"""Levers: the settings that runbooks may change, each readable, writable and told in words.

None of these APIs offers a conditional write, so compare-and-set is read, compare, write, read back
(``changes.py``); the window between read and write is some ten milliseconds and is said so in
``docs/decisions.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from botocore.exceptions import ClientError

from oncall.errors import NotFound, WorldMoved
from oncall.words import tell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.services import Services


# They stand in the record: renaming one loses the leases that are out.
RESERVED_CONCURRENCY = "reserved-concurrency"
PROVISIONED_CONCURRENCY = "provisioned-concurrency"
MAPPING_CONCURRENCY = "mapping-concurrency"
MAPPING_ENABLED = "mapping-enabled"
BACK_PRESSURE = "back-pressure"


class Qualified(TypedDict):
    """A version or alias of a function."""

    FunctionName: str
    Qualifier: str


class Lever(Protocol):
    """One kind of setting."""

    id: str

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

    id = RESERVED_CONCURRENCY

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


class ProvisionedConcurrency:
    """An alias's or version's provisioned concurrency; resource: the qualified function's ARN.

    Lambda allocates it over minutes: what is read is what was requested; looks wait for ``READY``
    (``PutProvisionedConcurrencyConfig``). None is put back by deleting the configuration.
    """

    id = PROVISIONED_CONCURRENCY

    def read(self, aws: Services, resource: str) -> int | None:
        """Return the requested number; ``None`` where nothing is provisioned."""
        try:
            answer = aws.client("lambda").get_provisioned_concurrency_config(**_qualified(resource))
        except ClientError as error:
            if error.response["Error"]["Code"] == "ProvisionedConcurrencyConfigNotFoundException":
                return None
            raise
        return answer["RequestedProvisionedConcurrentExecutions"]

    def write(self, aws: Services, resource: str, value: int | None) -> None:
        """Provision ``value`` execution environments, or none."""
        if value is None:
            aws.client("lambda").delete_provisioned_concurrency_config(**_qualified(resource))
        else:
            aws.client("lambda").put_provisioned_concurrency_config(
                **_qualified(resource), ProvisionedConcurrentExecutions=value
            )

    def tags(self, aws: Services, resource: str) -> Mapping[str, str]:
        """Return the function's tags: aliases and versions have none of their own."""
        function = resource.rpartition(":")[0]
        return aws.client("lambda").list_tags(Resource=function)["Tags"]

    def command(self, resource: str, value: int | None) -> str:
        """Return the CLI command."""
        function, _, qualifier = resource.rpartition(":")
        where = f"--function-name {function} --qualifier {qualifier}"
        if value is None:
            return f"aws lambda delete-provisioned-concurrency-config {where}"
        return (
            f"aws lambda put-provisioned-concurrency-config {where} "
            f"--provisioned-concurrent-executions {value}"
        )


class MappingConcurrency:
    """A mapping's ``ScalingConfig.MaximumConcurrency`` (2-1,000); resource: the mapping's ARN.

    An empty ``ScalingConfig`` removes the cap (Lambda ``UpdateEventSourceMapping``).
    """

    id = MAPPING_CONCURRENCY

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

    id = MAPPING_ENABLED

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

    id = BACK_PRESSURE

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


def _qualified(resource: str) -> Qualified:
    """Take ``arn:…:function:<name>:<qualifier>`` apart, as Lambda's calls want it."""
    function, _, qualifier = resource.rpartition(":")
    return {"FunctionName": function, "Qualifier": qualifier}


LEVERS: Mapping[str, Lever] = {
    lever.id: lever
    for lever in (
        ReservedConcurrency(),
        ProvisionedConcurrency(),
        MappingConcurrency(),
        MappingEnabled(),
        BackPressure(),
    )
}


def write_as_planned(aws: Services, lever: str, resource: str, value: Any, name: str) -> None:
    """Write, and take a refusal of the value for a world that has moved: the plan kept all limits.

    ``name`` is the setting's in words. A deployment that has begun to shift an alias's weights, or
    somebody who has taken from the account's pool, makes Lambda answer
    ``InvalidParameterValueException``. Raises ``WorldMoved`` then.
    """
    try:
        LEVERS[lever].write(aws, resource, value)
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidParameterValueException":
            raise
        raise WorldMoved(
            f"AWS refuses to set {name} to {tell(value)} "
            f"({error.response['Error']['Message']}). I look again."
        ) from error
