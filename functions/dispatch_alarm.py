"""Start the runbook that an alarm is tagged with.

The target of an EventBridge rule on ``CloudWatch Alarm State Change``. Every event is counted once
in the namespace ``Runbooks``: ``AlarmsStarted``, ``AlarmsGathered`` (started within a storm) or
``AlarmsIgnored`` by ``Reason``, all by ``service`` (the stack). An alarm that cannot start what its
tags name pages on-call, with the sentence that says what to fix. What fails is raised: Lambda tries
again, then the event goes to the dead-letter queue, and the sweep finds the alarm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncall import alarms, dispatch
from oncall.alarms import Ignore
from oncall.dispatch import DispatchSettings, Refused, Started
from oncall.step import logged, logger, services

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.alarms import StateChange
    from oncall.services import Services


def handler(event: Mapping[str, Any], context: Any) -> Mapping[str, str]:
    """Start, join or ignore; ``{"result": "started|gathered|ignored", "reason", "incident"}``."""
    with logged(function="dispatch_alarm"):
        settings = DispatchSettings.from_environment()
        return dispatch_alarm(event, services(), settings, context.aws_request_id)


def dispatch_alarm(
    event: Mapping[str, Any], aws: Services, settings: DispatchSettings, request: str
) -> Mapping[str, str]:
    """Do what an event asks for, count it and log why.

    Raises ``BadInput`` for what is no alarm event, ``ReadTooEarly`` and AWS's errors.
    """
    change = alarms.read_event(event)
    known = {"alarm": change.name, "changed_at": str(change.at)}
    done = _dispatch(change, aws, settings, request)
    if isinstance(done, Refused):
        dispatch.count_alarm("AlarmsMisconfigured")
        dispatch.count_alarm("AlarmsIgnored", Reason="misconfigured")
        logger.error(done.text, extra={**known, "reason": "misconfigured"})
        return {"result": "ignored", "reason": "misconfigured", "incident": done.incident}
    if isinstance(done, Ignore):
        dispatch.count_alarm("AlarmsIgnored", Reason=done.reason)
        logger.info(done.text, extra={**known, "reason": done.reason})
        return {"result": "ignored", "reason": done.reason, "incident": ""}
    result = "gathered" if done.storm else "started"
    dispatch.count_alarm("AlarmsGathered" if done.storm else "AlarmsStarted")
    logger.info(
        f"Alarm {change.name} started run {done.incident}.",
        extra={**known, "correlation_id": done.incident, "storm": done.storm},
    )
    return {"result": result, "reason": "", "incident": done.incident}


def _dispatch(
    change: StateChange, aws: Services, settings: DispatchSettings, request: str
) -> Started | Refused | Ignore:
    ignore = alarms.unworthy(change)
    if ignore:
        return ignore
    tags = dispatch.read_tags(aws, change.arn)
    if alarms.RUNBOOK_TAG not in tags:
        return Ignore("untagged", f"Alarm {change.name} has no tag {alarms.RUNBOOK_TAG}.")
    live = dispatch.read_alarm(aws, change.name)
    late = alarms.outdated(change, live)
    if late or live is None:
        return late or Ignore("late", f"Alarm {change.name} no longer exists.")
    prepared = dispatch.prepare(aws, settings, live, tags)
    if isinstance(prepared, Ignore | Refused):
        return prepared
    return dispatch.launch(aws, settings, prepared, request)
