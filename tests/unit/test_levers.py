"""Levers: what is written is read back, and the command by hand says the same."""

import shlex
from typing import Any

import pytest
from botocore.exceptions import ClientError

from oncall.errors import NotFound
from oncall.levers import LEVERS
from tests.unit.world import FUNCTION, MAPPING, OPTED_IN, PARAMETER, UUID, a_world
from tools.checks.commands import check_commands

RESOURCES = {
    "reserved-concurrency": FUNCTION,
    "provisioned-concurrency": f"{FUNCTION}:live",
    "mapping-concurrency": MAPPING,
    "mapping-enabled": MAPPING,
    "back-pressure": PARAMETER,
}
_PUT = f"lambda put-function-concurrency --function-name {FUNCTION}"
_PROVISION = f"--function-name {FUNCTION} --qualifier live"
_SIXTY = "--provisioned-concurrent-executions 60"
VALUES: list[tuple[str, Any, str]] = [
    (
        "reserved-concurrency",
        60,
        f"{_PUT} --reserved-concurrent-executions 60",
    ),
    (
        "reserved-concurrency",
        0,
        f"{_PUT} --reserved-concurrent-executions 0",
    ),
    (
        "reserved-concurrency",
        None,
        f"lambda delete-function-concurrency --function-name {FUNCTION}",
    ),
    (
        "provisioned-concurrency",
        60,
        f"lambda put-provisioned-concurrency-config {_PROVISION} {_SIXTY}",
    ),
    (
        "provisioned-concurrency",
        None,
        f"lambda delete-provisioned-concurrency-config --function-name {FUNCTION} --qualifier live",
    ),
    (
        "mapping-concurrency",
        60,
        f"lambda update-event-source-mapping --uuid {UUID} --scaling-config MaximumConcurrency=60",
    ),
    (
        "mapping-concurrency",
        None,
        f"lambda update-event-source-mapping --uuid {UUID} --scaling-config {{}}",
    ),
    ("mapping-enabled", True, f"lambda update-event-source-mapping --uuid {UUID} --enabled"),
    ("mapping-enabled", False, f"lambda update-event-source-mapping --uuid {UUID} --no-enabled"),
    ("back-pressure", "off", f"ssm put-parameter --overwrite --name {PARAMETER} --value off"),
    (
        "back-pressure",
        '{"state": "on"}',
        f'ssm put-parameter --overwrite --name {PARAMETER} --value \'{{"state": "on"}}\'',
    ),
]


def test_no_lever_is_left_out() -> None:
    assert set(LEVERS) == set(RESOURCES)


@pytest.mark.parametrize(("lever", "value", "command"), VALUES)
def test_what_is_written_is_read_and_its_command_says_the_same(
    lever: str, value: Any, command: str
) -> None:
    world = a_world()
    resource = RESOURCES[lever]
    LEVERS[lever].write(world.aws, resource, value)
    assert LEVERS[lever].read(world.aws, resource) == value
    said = LEVERS[lever].command(resource, value)
    assert shlex.split(said) == ["aws", *shlex.split(command)]
    assert check_commands(lever, said) == []


@pytest.mark.parametrize("lever", RESOURCES)
def test_tags_are_those_of_what_the_setting_belongs_to(lever: str) -> None:
    world = a_world()
    assert LEVERS[lever].tags(world.aws, RESOURCES[lever]) == OPTED_IN
    world.cloud.tags.clear()
    assert LEVERS[lever].tags(world.aws, RESOURCES[lever]) == {}


@pytest.mark.parametrize(
    ("state", "polls"),
    [
        ("Enabled", True),
        ("Enabling", True),
        ("Creating", True),
        ("Updating", True),
        ("Disabled", False),
        ("Disabling", False),
        ("Deleting", False),
    ],
)
def test_a_mapping_polls_or_is_about_to(state: str, polls: bool) -> None:  # noqa: FBT001 -- drawn
    world = a_world()
    world.cloud.state = state
    assert LEVERS["mapping-enabled"].read(world.aws, MAPPING) is polls


def test_a_parameter_that_is_gone_is_not_found_and_a_denial_stays_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = a_world()
    with pytest.raises(NotFound, match="There is no SSM parameter /other"):
        LEVERS["back-pressure"].read(world.aws, "/other")

    def denied(**_given: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, "GetParameter")

    monkeypatch.setattr(world.aws.client("ssm"), "get_parameter", denied, raising=False)
    with pytest.raises(ClientError):
        LEVERS["back-pressure"].read(world.aws, PARAMETER)
