"""CloudFormation gives an event source mapping its tags, and its cap as a number."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ministack.services import lambda_svc

from local.aws import EmbeddedAws
from local.aws.bridges import cloudformation

TEMPLATE = {
    "Parameters": {"Cap": {"Type": "Number"}, "Owner": {"Type": "String"}},
    "Resources": {
        "Mapping": {
            "Type": "AWS::Lambda::EventSourceMapping",
            "Properties": {
                "FunctionName": "consumer",
                "EventSourceArn": "arn:aws:sqs:us-east-1:123456789012:not-there",
                "ScalingConfig": {"MaximumConcurrency": {"Ref": "Cap"}},
                "Tags": [{"Key": "owner", "Value": {"Ref": "Owner"}}],
            },
        }
    },
    "Outputs": {"Mapping": {"Value": {"Ref": "Mapping"}}},
}


@pytest.fixture
def aws() -> Iterator[EmbeddedAws]:
    with EmbeddedAws() as aws:
        yield aws


def deployed(aws: EmbeddedAws, template: Path, cap: int, owner: str) -> dict[str, Any]:
    """Return the mapping as the poller sees it."""
    template.write_text(json.dumps(TEMPLATE))
    outputs = aws.deploy("mappings", template, {"Cap": str(cap), "Owner": owner})
    mapping: dict[str, Any] = lambda_svc._esms._data[aws.account, aws.region, outputs["Mapping"]]
    return mapping


def tags(aws: EmbeddedAws, mapping: dict[str, Any]) -> dict[str, str]:
    arn = f"arn:aws:lambda:us-east-1:{aws.account}:event-source-mapping:{mapping['UUID']}"
    return aws.client("lambda").list_tags(Resource=arn)["Tags"]


def test_a_stack_creates_and_updates_cap_and_tags(aws: EmbeddedAws, tmp_path: Path) -> None:
    mapping = deployed(aws, tmp_path / "t.json", 3, "one")
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": 3}
    assert tags(aws, mapping) == {"owner": "one"}

    mapping = deployed(aws, tmp_path / "t.json", 4, "two")
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": 4}
    assert tags(aws, mapping) == {"owner": "two"}


def test_the_gap_is_still_there(aws: EmbeddedAws, tmp_path: Path) -> None:
    with cloudformation.BRIDGE.off():
        mapping = deployed(aws, tmp_path / "t.json", 3, "one")
        assert mapping["ScalingConfig"] == {"MaximumConcurrency": "3"}
        assert tags(aws, mapping) == {}
