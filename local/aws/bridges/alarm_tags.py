"""Gap: GetResources of the tagging API does not know CloudWatch's alarms.

AWS: alarms are among the resources whose tags it finds
(https://docs.aws.amazon.com/resourcegroupstagging/latest/APIReference/supported-services.html);
only those that are tagged, or were once, are returned
(https://docs.aws.amazon.com/resourcegroupstagging/latest/APIReference/API_GetResources.html).
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

from collections.abc import Iterator

from ministack.core.responses import get_region
from ministack.services import cloudwatch, tagging

from local.aws.bridges.bridge import Bridge

BRIDGE = Bridge("alarm_tags")


def _collect() -> Iterator[tuple[str, list[dict[str, str]]]]:
    for arn, tags in list(cloudwatch._resource_tags.items()):
        if arn.split(":")[3] == get_region():
            yield arn, [{"Key": key, "Value": value} for key, value in tags.items()]


BRIDGE.add(tagging._COLLECTORS, "cloudwatch", _collect)
