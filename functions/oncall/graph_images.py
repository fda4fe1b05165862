"""Having CloudWatch draw an incident's graph: the I/O of ``graphs``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from oncall import contract as contracts
from oncall import graphs, service
from oncall.errors import BadInput
from oncall.targets import service_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mypy_boto3_cloudwatch.client import CloudWatchClient

    from oncall.graphs import Graph, Line
    from oncall.incident import Incident
    from oncall.services import Services

_BY_NAME = "name"
"""The contract's input that names a service."""


class NoGraph(Exception):  # noqa: N818 -- a state of the world, told in the thread
    """There is no picture of the incident; the sentence says why."""


def take(aws: Services, incident: Incident) -> tuple[Graph, bytes] | None:
    """Return an incident's graph and its PNG; ``None`` where its runbook declares no graph.

    CloudWatch ``DescribeAlarms`` and ``GetMetricWidgetImage``, each with two tries of at most six
    seconds. Raises ``NoGraph``.
    """
    try:
        lines = _lines(incident)
        if not lines:
            return None
        # Impatient clients: no message may wait long for a picture.
        cloudwatch = aws.within(aws.settings.region).client("cloudwatch")
        graph = graphs.make(
            incident,
            lines,
            _alarm(cloudwatch, incident),
            period_seconds=aws.settings.period_seconds,
            now=aws.clock(),
        )
        answer = cloudwatch.get_metric_widget_image(MetricWidget=json.dumps(graph.widget))
    except ClientError as error:
        code = error.response["Error"]["Code"]
        raise NoGraph(f"CloudWatch does not draw it ({error.operation_name}: {code})") from error
    except BotoCoreError as error:
        raise NoGraph(f"CloudWatch does not answer ({type(error).__name__})") from error
    except BadInput as error:
        raise NoGraph(str(error)) from error
    return graph, answer["MetricWidgetImage"]


def _lines(incident: Incident) -> list[Line]:
    """Return what the incident's graph shows. Raises ``BadInput``."""
    contract = contracts.load(incident.runbook)
    if contract.target_input == _BY_NAME:
        return graphs.lines_of_service(service.load(service_name(incident.target)))
    declared = contract.text.get("graph", [])
    return graphs.lines_of(declared, contract.trigger, incident.target_name)


def _alarm(cloudwatch: CloudWatchClient, incident: Incident) -> Mapping[str, Any] | None:
    """Return the metric alarm that started the run, as it is now."""
    name = str((incident.trigger.get("alarm") or {}).get("name", ""))
    if not name:
        return None
    found = cloudwatch.describe_alarms(AlarmNames=[name], AlarmTypes=["MetricAlarm"])
    return next(iter(found["MetricAlarms"]), None)
