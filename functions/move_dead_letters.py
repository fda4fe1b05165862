"""Move dead letters for one bounded round: archived first, sent, and deleted once confirmed.

Called with ``{"run", "state", "plan_hash", "part": "canary"|"round", "worker", "workers", "rate",
"round"}``; returns ``{"tally": {...}}``, the fields of ``oncall.mover.Tally``. It may die anywhere
and be called again: what was sent is deleted, what was not is in the queue. Where letters may not
be archived, SQS moves them itself (``oncall.move_task``); a task that was started is then adopted.
"""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import asdict
from threading import Lock
from typing import TYPE_CHECKING, Any

from oncall import (
    archive,
    dlq_facts,
    elsewhere,
    elsewhere_facts,
    guards,
    letters,
    move_task,
    mover,
    replays,
    unarchived,
)
from oncall import contract as contracts
from oncall.archive_store import bucket_store
from oncall.deliveries import FunctionSink
from oncall.errors import Aborted, GuardRefused, TakenOver, WorldMoved
from oncall.sqs_wire import Queue
from oncall.step import step
from oncall.targets import queue_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oncall.incident import Incident
    from oncall.services import Services
    from oncall.step import Call

_LONGEST_SECONDS = 240
"""Of a round: the function's time less what calls under way and the start may take."""
_SHORTEST_SECONDS = 6
"""Of a round: enough for the long polls that find a queue empty."""
_POLL_SECONDS = 10
_THREADS = 96
_RATE_OF_A_THREAD = 50
"""Letters a second that a thread moves at least, at 60 ms a call."""
_NO_LIMIT = 10_000_000


def work(call: Call, aws: Services) -> Mapping[str, Any]:
    """Move letters.

    Raises ``WorldMoved`` (another plan is in the record), ``GuardRefused``, ``Aborted``,
    ``TakenOver`` or ``NeedsHuman`` (somebody else moves them); nothing has been touched then.
    """
    incident = aws.store.load(call.run.incident)
    if incident.plan.get("hash") != call.payload["plan_hash"]:
        raise WorldMoved("The record holds another plan by now; I look again.")
    order = incident.plan["order"]
    native = unarchived.is_native(order)
    changed = [call.run.target]
    if elsewhere.is_elsewhere(call.run.target, order["destination"]):
        elsewhere_facts.check_listed(aws, order["destination"])
    else:
        changed.append(order["destination"])
    for arn in changed:
        name = arn.rsplit(":", 1)[-1]
        tags = dlq_facts.destination_tags(aws, arn)
        guards.check_before_change(aws, call.run, name, tags)
        if arn == call.run.target and not native and unarchived.forbidden(tags):
            raise GuardRefused(
                f"The owner of {name} forbids copies of its letters now (tag "
                f"{unarchived.ARCHIVE_TAG}), so I stop. Start me again to replay without copies."
            )
    if native:
        return {"tally": asdict(_by_sqs(call, aws, incident))}
    # The lock is checked by this write: a worker of a run that has lost it moves nothing.
    said = replays.under_way(str(incident.progress.get("effect", "")), incident.id)
    aws.store.note(call.run, None, phase="acting", progress={**incident.progress, "effect": said})
    tally = mover.move(_order(call, aws, incident), _ports(call, aws, order))
    return {"tally": asdict(tally)}


def _by_sqs(call: Call, aws: Services, incident: Incident) -> mover.Tally:
    """Let SQS move letters. Raises what ``move_task.move`` raises."""
    order = incident.plan["order"]
    canary = call.payload["part"] == "canary"
    number = 0 if canary else int(call.payload["round"])
    seconds = _round_seconds(call, aws)
    if canary:
        most, rate = int(order["canary"]), move_task.CANARY_RATE
        seconds = min(_LONGEST_SECONDS, max(seconds, 2 * most / rate))
    else:
        most, rate = 0, min(unarchived.FASTEST, int(call.payload["rate"]))
    said = replays.under_way(
        str(incident.progress.get("effect", "")),
        incident.id,
        unarchived.how_to_end(call.run.target),
    )

    def note(recorded: Mapping[str, Any]) -> None:
        progress = {**incident.progress, "effect": said}
        aws.store.note(call.run, None, phase="acting", progress=progress, move_task=recorded)

    wanted = move_task.Order(
        dlq=call.run.target,
        destination=order["destination"],
        round=f"{call.run.round}-{number:04}",
        rate=rate,
        most=most,
        seconds=seconds,
    )
    ports = move_task.Ports(aws.client("sqs"), note, _stop(call, aws), time.time, time.sleep)
    return move_task.move(wanted, ports, incident.move_task)


def _round_seconds(call: Call, aws: Services) -> float:
    periods = contracts.load(call.run.runbook).limits["round_periods"]
    return max(_SHORTEST_SECONDS, min(_LONGEST_SECONDS, periods * aws.settings.period_seconds))


def _order(call: Call, aws: Services, incident: Incident) -> mover.Order:
    limits = contracts.load(call.run.runbook).limits
    order, now = incident.plan["order"], time.time()
    canary = call.payload["part"] == "canary"
    workers = int(call.payload.get("workers", 1))
    rate = float(order["first_rate"] if canary else call.payload["rate"]) / workers
    period = aws.settings.period_seconds
    deadline = now + _round_seconds(call, aws)
    number = 0 if canary else int(call.payload["round"])
    return mover.Order(
        run=call.run.incident,
        # A try after a crash must not write over what the dead one has archived.
        worker=f"{number:04}-{int(call.payload['worker']):02}-{uuid.uuid4().hex[:8]}",
        deadline=deadline,
        most=int(order["canary"]) if canary else _NO_LIMIT,
        destination=_takes(call, aws, order["destination"]),
        rules=letters.compile_rules(order["rules"]),
        max_replays=int(limits["max_replays"]),
        fifo_source=call.run.target.endswith(".fifo"),
        rate=rate,
        wait_seconds=max(1, min(_POLL_SECONDS, period // 6)),
        threads=1
        if canary or order["archive"]
        else min(_THREADS, math.ceil(rate / _RATE_OF_A_THREAD)),
        # Left letters come again soon after the round, so that whoever looks then finds them.
        left_until=deadline + 2 * period,
        unmarked=dlq_facts.unmarked(aws, incident),
    )


def _ports(call: Call, aws: Services, order: Mapping[str, Any]) -> mover.Ports:
    store, to = bucket_store(aws), str(order["destination"])
    from_queue: mover.Source = _wire(aws, call.run.target)
    sink: mover.Sink = (
        FunctionSink(aws.client("lambda"), to, order["kind"])
        if dlq_facts.is_function(to)
        else _wire(aws, to)
    )
    if order["archive"]:
        done = archive.replayed_ids(store, call.run.incident)
        kept = archive.not_replayed(store, str(order["archive"]))
        from_queue = archive.ArchivedLetters(kept, done)
    return mover.Ports(
        source=from_queue,
        sink=sink,
        archive=store,
        stop=_stop(call, aws),
        clock=time.time,
        sleep=time.sleep,
    )


def _takes(call: Call, aws: Services, arn: str) -> letters.Destination:
    if elsewhere.is_elsewhere(call.run.target, arn):
        return elsewhere_facts.takes(aws, arn)
    return dlq_facts.takes(aws, arn)


def _wire(aws: Services, arn: str) -> Queue:
    return Queue(aws.session, queue_url(aws, arn), elsewhere.region_of(arn))


def _stop(call: Call, aws: Services) -> Callable[[], bool]:
    """Return whether a person or a kill switch wants it to stop, asked at most once a second."""
    asked, wanted = 0.0, False
    one_at_a_time = Lock()  # boto3's resources are not for several threads at once

    def stop() -> bool:
        nonlocal asked, wanted
        with one_at_a_time:
            if wanted or time.monotonic() - asked < 1:
                return wanted
            asked = time.monotonic()
            try:
                incident = aws.store.load(call.run.incident)
                guards.heed_stop(incident)
                guards.heed_switches(aws, call.run, "I stop")
                # It ends without this worker: it failed, or was stopped from outside.
                wanted = incident.status == "closed" or incident.phase == "putting_back"
            except (Aborted, TakenOver, GuardRefused):
                wanted = True
            return wanted

    return stop


handler = step(work)
