"""AWS::CloudWatch::Alarm with Metrics (metric math), which MiniStack refuses.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-cloudwatch-alarm.html
"""

from collections.abc import Callable, Mapping
from typing import Any

from ministack.services import cloudwatch
from ministack.services.cloudformation import provisioners

from local.aws.cloudwatch.alarms import Alarm
from local.aws.cloudwatch.api import complete
from local.aws.cloudwatch.patching import Patches


def install(patches: Patches) -> None:
    """Accept Metrics and keep an alarm's reason data and times over a stack update."""
    patches.replace(provisioners, "_cw_metric_alarm_record", _around_record)


def _around_record(original: Callable[..., Alarm]) -> Callable[..., Alarm]:
    def record(name: str, props: Mapping[str, Any]) -> Alarm:
        before = cloudwatch._alarms.get(name)  # noqa: SLF001 -- its store
        request = dict(props)
        if request.get("Metrics"):
            request["Metrics"] = [_query(query) for query in request["Metrics"]]
            # Placeholders: the original insists on one metric, and complete() removes it.
            plain = {key: value for key, value in props.items() if key != "Metrics"}
            alarm = original(name, plain | {"MetricName": "-", "Namespace": "-"})
        else:
            alarm = original(name, props)
        complete(alarm, request, before)
        return alarm

    return record


def _query(query: Mapping[str, Any]) -> dict[str, Any]:
    """Template values may be strings; the API has numbers and booleans."""
    typed = dict(query)
    if "ReturnData" in typed:
        typed["ReturnData"] = typed["ReturnData"] not in (False, "false")
    if "Period" in typed:
        typed["Period"] = int(typed["Period"])
    if "MetricStat" in typed:
        typed["MetricStat"] = {**typed["MetricStat"], "Period": int(typed["MetricStat"]["Period"])}
    return typed
