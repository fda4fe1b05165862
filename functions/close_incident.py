"""Close the incident: outcome, lock, history. The report follows from the record.

Called with ``{"run", "state", "ending": {"error", "cause"}}``; an empty error is a good end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import MetricUnit

from oncall import endings, scorecard
from oncall.counting import count
from oncall.incident import Entry
from oncall.step import step
from oncall.times import parse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncall.incident import Incident
    from oncall.services import Services
    from oncall.step import Call


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Close; ``{"outcome", "error", "summary", "good"}``, which the machine ends with."""
    ending = endings.read(call.payload["ending"])
    incident = aws.store.load(call.run.incident)
    outcome = endings.outcome(ending, call.run.mode)
    took = aws.clock() - parse(incident.started_at)
    summary = endings.summary(ending, outcome, incident, took)
    closed = aws.store.close(
        call.run,
        outcome,
        summary,
        Entry(id="closed", kind="closed", text=summary),
        doing=endings.closing_words(incident),
        need=endings.closing_need(outcome, incident),
    )
    publish(closed)
    return {
        "outcome": closed.outcome,
        "error": "".join(word.capitalize() for word in closed.outcome.split("_")),
        "summary": closed.summary,
        "good": closed.outcome in endings.GOOD,
    }


def publish(closed: Incident) -> None:
    """Publish ``RunsClosed`` by runbook and outcome, and ``SecondsToRelief`` of a run that helped.

    The mean of ``SecondsToRelief`` is the dashboard's MTTR.
    """
    count("RunsClosed", Runbook=closed.runbook, Outcome=closed.outcome)
    relief = scorecard.relief_seconds(closed)
    if relief is not None:
        count("SecondsToRelief", relief, MetricUnit.Seconds, Runbook=closed.runbook)


handler = step(work)
