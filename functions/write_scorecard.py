"""Write the scorecard of the week that ends now; once a week, by a schedule.

It is a record like any other, closed from its start and without a machine, so ``report`` tells it
as it tells incidents: with retries, by the sweeper if it is owed, and from the one function that
holds Slack's token. Written twice in one week it stands once.
"""

from __future__ import annotations

import json
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from oncall import contract as contracts
from oncall import scorecard
from oncall.errors import BadInput
from oncall.headline import is_game_day
from oncall.incident import Entry, Incident
from oncall.scorecard import SCORECARD, WINDOW, Run
from oncall.step import logged, services
from oncall.times import iso, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from oncall.contract import Contract
    from oncall.scorecard import Line
    from oncall.services import Services

_LONGEST = timedelta(days=1)
"""No machine runs longer (``runbook.schema.json``)."""
_TOLD = 40
"""So many lines are told one by one; DynamoDB takes 100 items in a transaction."""
_KEPT = 200
"""So many lines the record holds: an item may have 400 KB."""


def handler(_event: Mapping[str, Any], _context: object) -> Mapping[str, Any]:
    """Write; ``{"incident", "lines"}``."""
    with logged(function="write_scorecard"):
        return write_scorecard(services())


def write_scorecard(aws: Services) -> Mapping[str, Any]:
    """Count the closed incidents and write the record."""
    now = aws.clock()
    known = cache(_contract)
    recent = aws.store.started(now - WINDOW - _LONGEST)
    counted = [
        one
        for one in recent
        if one.status != "open" and known(one.runbook) and not is_game_day(one)
    ]
    incidents = [aws.store.load(one.id) for one in counted]
    lines = scorecard.score(with_history(aws, incidents), now, known)
    written = aws.store.open_closed(_record(aws, lines), *_entries(lines))
    return {"incident": written.id, "lines": len(lines)}


def _contract(runbook: str) -> Contract | None:
    """Return a runbook's contract, ``None`` for what gathers or counts and is none."""
    try:
        return contracts.load(runbook)
    except BadInput:
        return None


def with_history(aws: Services, incidents: Iterable[Incident]) -> list[Run]:
    """Add when the alarm of each was OK again, as CloudWatch's history tells it."""
    since: dict[str, str] = {}
    for incident in incidents:
        name = _alarm(incident)
        if name:
            fired = scorecard.fired_at(incident)
            since[name] = min(since.get(name, fired), fired)
    oks = {name: _ok_times(aws, name, fired) for name, fired in since.items()}
    runs = []
    for incident in incidents:
        fired = scorecard.fired_at(incident)
        later = [at for at in oks.get(_alarm(incident), []) if at > fired]
        runs.append(Run(incident, min(later, default="")))
    return runs


def _alarm(incident: Incident) -> str:
    return str((incident.trigger.get("alarm") or {}).get("name", ""))


def _ok_times(aws: Services, alarm: str, since: str) -> list[str]:
    """Return when an alarm went to OK (CloudWatch API Reference, AlarmHistoryItem)."""
    pages = aws.client("cloudwatch").get_paginator("describe_alarm_history")
    items = pages.paginate(
        AlarmName=alarm,
        AlarmTypes=["MetricAlarm", "CompositeAlarm"],
        HistoryItemType="StateUpdate",
        StartDate=parse(since),
    )
    return [
        iso(item["Timestamp"])
        for page in items
        for item in page["AlarmHistoryItems"]
        if json.loads(item["HistoryData"]).get("newState", {}).get("stateValue") == "OK"
    ]


def _record(aws: Services, lines: Sequence[Line]) -> Incident:
    now = aws.clock()
    proposals = sum(line.proposal is not None for line in lines)
    propose = f"I propose {proposals} changes of autonomy." if proposals else "I propose no change."
    return Incident(
        id=scorecard.record_id(now),
        runbook=SCORECARD,
        title="What the runbooks were worth this week",
        target=f"{SCORECARD}#{scorecard.record_id(now)}",
        target_name="Scorecard",
        mode="",
        trigger={"kind": SCORECARD, "by": "", "reason": "", "alarm": {}},
        execution="",
        fence=0,
        happened=f"{scorecard.total(lines, now)} The thread has them by runbook and target.",
        doing=f"Counted. {propose}",
        need="Decide on the proposals; the thread has the commands." if proposals else "Nothing.",
        outcome="observed",
        summary=f"{scorecard.total(lines, now)} {propose}",
        plan=scorecard.document(lines[:_KEPT], now),
    )


def _entries(lines: Sequence[Line]) -> list[Entry]:
    entries = [
        Entry(id=f"scored-{n}", kind="scored", text=scorecard.sentence(line))
        for n, line in enumerate(lines[:_TOLD], 1)
    ]
    if len(lines) > _TOLD:
        text = f"And {len(lines) - _TOLD} targets more; the report has them."
        entries.append(Entry(id="scored-more", kind="scored", text=text))
    return entries
