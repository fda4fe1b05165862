"""What ails a queue, what to do about it, and whether it has helped: pure, from facts to words.

Nothing here has a client or a clock. Counts are messages, times are seconds, durations of a
function are milliseconds, rates are per second; a series holds one value a period, oldest first,
and is empty where CloudWatch has no datapoint, which is not the same as zero.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from oncall.changes import Planned
from oncall.levers import BACK_PRESSURE, MAPPING_CONCURRENCY, MAPPING_ENABLED, RESERVED_CONCURRENCY
from oncall.plans import NO_CAUSE, SHARE_OF_A_RUN, Look, Plan, diagnosed, ended, relapsed
from oncall.words import duration, last, ms, per_second, percent, total

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncall.plans import Cause, Diagnosis

MAX_CONCURRENCY_OF_A_MAPPING = 1000
"""Lambda API, ``ScalingConfig.MaximumConcurrency``: 2 to 1,000."""
MIN_CONCURRENCY_OF_A_MAPPING = 2
_STEPS_OF_A_TREND = 3
_NEARLY = 0.8
"""Share of its timeout from which a function without a history counts as slow."""
_POLLING = frozenset({"Enabled", "Enabling", "Updating", "Creating"})


@dataclass(frozen=True, slots=True)
class Facts:
    """What ``inspect_queue`` has read of a queue, its consumer and what they share."""

    queue: str
    queue_arn: str
    period_seconds: int
    fifo: bool
    visible: int
    in_flight: int
    delayed: int
    visibility_timeout: int
    max_receive_count: int | None
    dlq: str | None
    dlq_visible: int | None
    mappings: int
    mapping_arn: str | None = None
    mapping_state: str = ""
    mapping_concurrency: int | None = None
    mapping_provisioned: bool = False
    batch_size: int = 0
    disabled_by: str | None = None
    """The ended incident of ours that has left the mapping disabled, if any."""
    function: str | None = None
    function_arn: str | None = None
    function_timeout: int = 0
    reserved: int | None = None
    other_caps: int = 0
    """Sum of MaximumConcurrency of the function's other mappings."""
    account_limit: int = 0
    unreserved: int = 0
    account_floor: int = 0
    usual_work: float | None = None
    """Milliseconds of work a message, over the periods before the window."""
    back_pressure: str | None = None
    """The SSM parameter that producers read, from the queue's tag ``runbook:back-pressure``."""
    back_pressure_value: str | None = None
    safe_size: int | None = None
    """From the queue's tag ``runbook:safe-size``."""
    depths: Sequence[float] = field(default_factory=tuple)
    oldest_age: Sequence[float] = field(default_factory=tuple)
    sent: Sequence[float] = field(default_factory=tuple)
    received: Sequence[float] = field(default_factory=tuple)
    deleted: Sequence[float] = field(default_factory=tuple)
    dlq_depths: Sequence[float] = field(default_factory=tuple)
    invocations: Sequence[float] = field(default_factory=tuple)
    errors: Sequence[float] = field(default_factory=tuple)
    throttles: Sequence[float] = field(default_factory=tuple)
    duration: Sequence[float] = field(default_factory=tuple)
    concurrency: Sequence[float] = field(default_factory=tuple)

    @property
    def backlog(self) -> int:
        """Messages that wait or are being worked on."""
        return self.visible + self.in_flight

    @property
    def arrival_rate(self) -> float | None:
        """Messages sent a second; ``None`` without datapoints."""
        return self._rate(self.sent)

    @property
    def steady_arrival_rate(self) -> float | None:
        """Messages sent in the median period, a second: a burst is in the backlog already."""
        return median(self.sent) / self.period_seconds if self.sent else None

    @property
    def rate_of_one(self) -> float | None:
        """Messages a second that one concurrent execution works off; ``None`` if unknown."""
        if self.work:
            return 1000 / self.work
        return self.drain_rate / self.cap if self.drain_rate and self.cap else None

    @property
    def drain_rate(self) -> float | None:
        """Messages deleted a second; ``None`` without datapoints."""
        return self._rate(self.deleted)

    @property
    def failing_share(self) -> float | None:
        """Share of work that fails; ``None`` without datapoints.

        The larger of failed invocations and of messages that were received, neither deleted nor
        still in flight: partial batch failures leave ``Errors`` at zero.
        """
        shares = []
        if self.invocations and sum(self.invocations) > 0:
            shares.append(sum(self.errors) / sum(self.invocations))
        if self.received and sum(self.received) > 0 and self.deleted:
            back = sum(self.received) - sum(self.deleted) - self.in_flight
            shares.append(max(0.0, back) / sum(self.received))
        return max(shares) if shares else None

    @property
    def dead_letters(self) -> float:
        """How many messages the dead-letter queue has gained over the window."""
        return max(0.0, self.dlq_depths[-1] - self.dlq_depths[0]) if self.dlq_depths else 0.0

    @property
    def cap(self) -> int | None:
        """The concurrency that the consumer cannot exceed; ``None`` without a cap of its own."""
        caps = [value for value in (self.mapping_concurrency, self.reserved) if value is not None]
        return min(caps) if caps else None

    @property
    def work(self) -> float | None:
        """Milliseconds of work a message; ``None`` without datapoints."""
        return work_per_message(self.duration, self.received)

    @property
    def invocation_duration(self) -> float | None:
        """Mean duration of an invocation in milliseconds; ``None`` without datapoints."""
        count = sum(self.invocations)
        return sum(self.duration) / count if count else None

    def _rate(self, series: Sequence[float]) -> float | None:
        if not series:
            return None
        return sum(series) / (len(series) * self.period_seconds)


def work_per_message(duration: Sequence[float], received: Sequence[float]) -> float | None:
    """Return milliseconds of work a message; ``None`` where it cannot be told.

    A backlog makes batches larger, so an invocation takes longer although nothing is slow: only
    the time a message takes can be compared.
    """
    messages = sum(received)
    return sum(duration) / messages if duration and messages else None


def facts_from(data: Mapping[str, Any]) -> Facts:
    """Read facts back from a state machine's JSON."""
    return Facts(**data)


def seen(facts: Facts) -> dict[str, Any]:
    """Return the numbers that later looks compare with."""
    return {
        "backlog": facts.backlog,
        "dlq_visible": facts.dlq_visible,
        "failing_share": facts.failing_share,
        "safe_size": facts.safe_size,
    }


def evidence(facts: Facts) -> tuple[str, ...]:
    """Return the numbers that a human would ask for; what is missing is said to be."""
    cap = "no cap" if facts.mapping_concurrency is None else f"cap {facts.mapping_concurrency}"
    reserved = "none" if facts.reserved is None else str(facts.reserved)
    lines = [
        f"{facts.visible} waiting, {facts.in_flight} in flight, oldest {_age(facts.oldest_age)}",
        f"in {per_second(facts.arrival_rate)}, out {per_second(facts.drain_rate)}",
    ]
    if facts.function:
        lines += [
            f"mapping {facts.mapping_state}, {cap}, batch {facts.batch_size}",
            (
                f"{facts.function}: concurrency {last(facts.concurrency)}, reserved {reserved}, "
                f"failing {percent(facts.failing_share)}, {ms(facts.work)} a message "
                f"(usually {ms(facts.usual_work)}), throttles {total(facts.throttles)}"
            ),
            (
                f"account: {facts.unreserved} of {facts.account_limit} unreserved, "
                f"floor {facts.account_floor}"
            ),
        ]
    if facts.dlq:
        lines.append(f"{facts.dlq}: {facts.dlq_visible} waiting, {facts.dead_letters:.0f} new")
    return tuple(lines)


def diagnose(facts: Facts, verification: Mapping[str, float]) -> Diagnosis:
    """Name the one cause that the evidence supports; ``undecided`` is an answer too."""
    causes = (
        _consumer_cause(facts),
        _health_cause(facts, verification),
        _flow_cause(facts, verification),
    )
    unknown = f"The metrics do not tell why {facts.queue} does not drain."
    return diagnosed(evidence(facts), causes, ("undecided", unknown))


def _consumer_cause(facts: Facts) -> Cause:
    """Find what is wrong with the wiring: nobody consumes."""
    name = facts.queue
    if facts.mappings == 0:
        return "no_consumer", f"No Lambda function consumes {name}."
    if facts.mappings > 1:
        return "several_consumers", f"{facts.mappings} mappings consume {name}; I handle one."
    if facts.mapping_provisioned:
        return (
            "provisioned_pollers",
            f"{name}'s mapping has provisioned pollers, which exclude a concurrency cap.",
        )
    if facts.mapping_state not in _POLLING:
        whose = f" by incident {facts.disabled_by}" if facts.disabled_by else ""
        return "consumer_disabled", f"{name}'s consumer is {facts.mapping_state.lower()}{whose}."
    if facts.reserved == 0:
        return (
            "stop_switch",
            f"{facts.function}'s reserved concurrency is 0: somebody has stopped it on purpose.",
        )
    return NO_CAUSE


def _health_cause(facts: Facts, verification: Mapping[str, float]) -> Cause:
    """Find what is wrong with the work itself."""
    failing = facts.failing_share
    if failing is not None and failing >= verification["failing_share"]:
        return (
            "consumer_erroring",
            f"{failing:.0%} of {facts.function}'s work fails; more concurrency would fail faster.",
        )
    if is_slow(facts, verification):
        return (
            "downstream_slow",
            (
                f"{facts.function} takes {ms(facts.work)} a message, usually "
                f"{ms(facts.usual_work)}: what lies behind it is slow."
            ),
        )
    if facts.dead_letters > 0:
        return (
            "poison_messages",
            (
                f"{facts.dead_letters:.0f} messages went to {facts.dlq} just now: some cannot be "
                f"processed."
            ),
        )
    return NO_CAUSE


def _flow_cause(facts: Facts, verification: Mapping[str, float]) -> Cause:
    """Find why healthy work does not keep up."""
    if not facts.depths or facts.arrival_rate is None or facts.drain_rate is None:
        return NO_CAUSE
    if facts.visible <= clear_below(max(facts.depths), verification) or _draining(
        facts, verification
    ):
        return "already_draining", f"{facts.queue} drains already."
    running = facts.concurrency[-1] if facts.concurrency else 0.0
    if facts.fifo and running < (facts.cap or MAX_CONCURRENCY_OF_A_MAPPING):
        return (
            "fifo_hot_group",
            (
                f"{facts.queue} is FIFO, and only {running:.0f} groups of messages are in work: "
                f"one busy group holds up its own messages, which no concurrency helps."
            ),
        )
    if facts.cap is not None and (running >= 0.9 * facts.cap or sum(facts.throttles) > 0):
        return (
            "consumer_capped",
            f"{facts.function} runs at its cap of {facts.cap} and is healthy.",
        )
    if len(facts.concurrency) > 1 and facts.concurrency[-1] > facts.concurrency[0]:
        return (
            "still_ramping",
            (
                f"{facts.function} is still scaling up, {facts.concurrency[0]:.0f} to "
                f"{running:.0f} so far."
            ),
        )
    if facts.arrival_rate > facts.drain_rate:
        return (
            "surge",
            (
                f"More arrives ({per_second(facts.arrival_rate)}) than {facts.function} works off "
                f"({per_second(facts.drain_rate)}), with no cap in its way."
            ),
        )
    return NO_CAUSE


def is_slow(facts: Facts, verification: Mapping[str, float]) -> bool:
    """Return whether a message takes much longer than usual, or a call its timeout."""
    if facts.work is not None and facts.usual_work:
        return facts.work >= verification["slow_factor"] * facts.usual_work
    if facts.invocation_duration is None:
        return False
    return facts.invocation_duration >= _NEARLY * 1000 * facts.function_timeout


def clear_below(backlog: float, verification: Mapping[str, float]) -> float:
    """Return the depth from which the queue counts as drained."""
    return max(verification["clear_messages"], verification["clear_share"] * backlog)


def plan(
    diagnosis: Diagnosis,
    facts: Facts,
    limits: Mapping[str, float],
) -> Plan:
    """Make a plan for a diagnosis; whatever has no safe action becomes a human's."""
    if diagnosis.cause == "consumer_capped":
        return _plan_raise(diagnosis, facts, limits)
    if diagnosis.cause == "consumer_disabled" and facts.disabled_by and facts.mapping_arn:
        change = Planned(
            lever=MAPPING_ENABLED,
            resource=facts.mapping_arn,
            name=f"{facts.function}'s consumer of {facts.queue}",
            before=False,
            after=True,
            why=f"incident {facts.disabled_by} disabled it and has ended",
            original=True,
            supersedes=facts.disabled_by,
        )
        return Plan("enable", "drain", (change,), f"Enable {change.name} again.")
    if diagnosis.cause in {"consumer_erroring", "downstream_slow"}:
        return _plan_lower(diagnosis, facts)
    if diagnosis.cause in {"already_draining", "still_ramping"}:
        return Plan("watch", "drain", (), "Change nothing and watch it drain.")
    if diagnosis.cause == "surge":
        shed = _shed(facts, limits)
        if shed:
            return Plan("shed", "drain", shed, f"{_shed_words(facts)}.")
    return Plan("human", "drain", (), f"{diagnosis.sentence} That is for a human to judge.")


def _plan_raise(diagnosis: Diagnosis, facts: Facts, limits: Mapping[str, float]) -> Plan:
    """Raise the cap as far as drains the queue in time, within every bound."""
    cap = facts.cap
    arrival, each = facts.steady_arrival_rate, facts.rate_of_one
    if cap is None or arrival is None or not each:
        return Plan("human", "drain", (), f"{diagnosis.sentence} Its rates are unknown.")
    time_wanted = limits["drain_within_periods"] * facts.period_seconds
    wanted = math.ceil((arrival + facts.backlog / time_wanted) / each)
    ceilings = _ceilings(facts, cap, limits)
    to = min([wanted, *(ceiling for ceiling, _ in ceilings)])
    bounds = tuple(words for ceiling, words in ceilings if ceiling == to < wanted)
    if wanted <= cap:
        return Plan("watch", "drain", (), "That drains it in time: change nothing and watch.")
    if to <= cap:
        return Plan(
            "human",
            "drain",
            (),
            f"{diagnosis.sentence} {facts.queue} would need {wanted}, but {bounds[0]}.",
            bounds,
        )
    surplus = to * each - arrival
    predicted = math.ceil(facts.backlog / surplus) if surplus > 0 else None
    if predicted is None or predicted > limits["run_seconds"] * SHARE_OF_A_RUN:
        takes = (
            f"it takes {duration(predicted)} to drain"
            if predicted is not None
            else f"only {per_second(to * each)} is worked off while {per_second(arrival)} arrive"
        )
        held = f" ({'; '.join(bounds)})" if bounds else ""
        return Plan(
            "human",
            "drain",
            (),
            f"{diagnosis.sentence} Even at {to} {takes}{held}.",
            bounds,
        )
    changes = (*_raises(facts, to), *_shed(facts, limits))
    shed = f" {_shed_words(facts)}." if changes and changes[-1].lever == BACK_PRESSURE else ""
    held = f" Held to that by: {'; '.join(bounds)}." if bounds else ""
    return Plan(
        "raise",
        "drain",
        changes,
        f"Raise {facts.function} from {cap} to {to}: each does {per_second(each)} and "
        f"{per_second(arrival)} arrive, so {to} clear the {facts.backlog} waiting in about "
        f"{duration(predicted)}.{shed}{held}",
        bounds,
        predicted,
    )


def _ceilings(facts: Facts, cap: int, limits: Mapping[str, float]) -> list[tuple[int, str]]:
    """Return every bound on the new cap with its reason."""
    ceilings = [
        (int(cap * limits["max_factor"]), f"at most {limits['max_factor']} times {cap}"),
        (int(limits["max_concurrency"]), f"at most {limits['max_concurrency']}"),
        (MAX_CONCURRENCY_OF_A_MAPPING, "Lambda allows a mapping at most 1,000"),
    ]
    if facts.reserved is None:
        share = max(cap, int(facts.unreserved * limits["account_share"]))
        ceilings.append(
            (
                share,
                (
                    f"at most {limits['account_share']:.0%} of the account's {facts.unreserved} "
                    f"unreserved"
                ),
            )
        )
    else:
        free = max(0, facts.unreserved - facts.account_floor)
        ceilings.append(
            (
                max(cap, facts.reserved + free - facts.other_caps),
                f"the account has {facts.unreserved} unreserved and keeps {facts.account_floor}",
            )
        )
    return ceilings


def _raises(facts: Facts, to: int) -> tuple[Planned, ...]:
    """Return the reservation first, then the mapping's cap: pollers ignore the reservation.

    With a reservation the cap is set to the same number even where it was higher, as what is
    polled beyond the reservation is throttled and burns receives.
    """
    why = "it is at its cap and healthy"
    changes: list[Planned] = []
    needed = to + facts.other_caps
    if facts.reserved is not None and facts.reserved < needed and facts.function_arn:
        changes.append(
            Planned(
                lever=RESERVED_CONCURRENCY,
                resource=facts.function_arn,
                name=f"{facts.function}'s reserved concurrency",
                before=facts.reserved,
                after=needed,
                why=f"{why}, and its pollers ignore the reservation",
            )
        )
    if facts.mapping_concurrency is not None and facts.mapping_concurrency != to:
        changes.append(_cap_change(facts, to, why))
    return tuple(changes)


def _cap_change(facts: Facts, to: int, why: str) -> Planned:
    return Planned(
        lever=MAPPING_CONCURRENCY,
        resource=str(facts.mapping_arn),
        name=f"{facts.function}'s maximum concurrency on {facts.queue}",
        before=facts.mapping_concurrency,
        after=to,
        why=why,
    )


def _plan_lower(diagnosis: Diagnosis, facts: Facts) -> Plan:
    """Halve the cap, so that what lies behind can recover; a human decides."""
    running = int(max(facts.concurrency, default=0))
    at = min((value for value in (facts.cap, running) if value), default=0)
    to = max(MIN_CONCURRENCY_OF_A_MAPPING, at // 2)
    if to >= at:
        return Plan(
            "human",
            "protect",
            (),
            f"{diagnosis.sentence} It runs at {at} already, which cannot be lowered by much.",
        )
    change = _cap_change(facts, to, f"{diagnosis.cause.replace('_', ' ')}: less load lets it heal")
    return Plan(
        "lower",
        "protect",
        (change,),
        f"Lower {facts.function} from {at} at once to {to} until it is healthy; the queue grows "
        f"meanwhile.",
    )


def _shed(facts: Facts, limits: Mapping[str, float]) -> tuple[Planned, ...]:
    """Return back-pressure for a queue past its safe size, where its owner has declared both."""
    if (
        not facts.back_pressure
        or facts.safe_size is None
        or facts.backlog <= facts.safe_size
        or facts.back_pressure_value != "off"
    ):
        return ()
    on = {"state": "on", "retry_after_seconds": limits["retry_after_seconds"]}
    return (
        Planned(
            lever=BACK_PRESSURE,
            resource=facts.back_pressure,
            name=f"back-pressure on {facts.queue}",
            before="off",
            after=json.dumps(on),
            why=f"{facts.backlog} waiting, its safe size is {facts.safe_size}",
        ),
    )


def _shed_words(facts: Facts) -> str:
    return (
        f"Ask producers to slow down (429) until {facts.queue} is well below its safe size of "
        f"{facts.safe_size}"
    )


def assess(
    before: Look,
    facts: Facts,
    planned: Mapping[str, Any],
    rules: Mapping[str, float],
    *,
    shed: bool,
) -> Look:
    """Judge whether the plan helps, from this look and the one before.

    ``planned`` is the plan's document, ``shed`` whether back-pressure is on. A ``protect`` plan is
    judged by the consumer's health, a ``drain`` plan by the queue's depth.
    """
    number = before.number + 1
    worse = _worse(facts, planned, rules)
    if worse and number > rules["grace_periods"]:
        return Look(number, "worse", worse, facts.visible)
    if planned["goal"] == "protect":
        return _assess_protection(before, facts, rules, number)
    backlog = max(1, planned["backlog"])
    clear = clear_below(backlog, rules)
    calm = before.calm + 1 if facts.visible <= clear else 0
    fell = before.measure is None or facts.visible < before.measure or facts.visible <= clear
    bad = 0 if fell else before.bad + 1
    done = min(1.0, max(0.0, 1 - facts.visible / backlog))
    eta = _eta(before, facts)
    look = Look(number, "wait", _words(facts, done), facts.visible, calm, bad, done, eta)
    if calm >= rules["calm_periods"]:
        return ended(look, "relieved", f"{facts.queue} is drained: {facts.visible} waiting.")
    if shed and facts.backlog <= rules["release_share"] * (planned["safe_size"] or 0):
        return ended(look, "shed_over", f"{facts.queue} is well below its safe size again.")
    limit = _looks_allowed(planned, facts, rules)
    if number > limit:
        return ended(
            look,
            "ineffective",
            f"{facts.queue} has {facts.visible} waiting after {number} looks, of {backlog} at "
            f"the start; it should have drained by now.",
        )
    if number > rules["grace_periods"] and bad >= rules["patience_periods"]:
        return ended(
            look,
            "ineffective",
            f"{facts.queue} has not fallen for {bad} looks: {facts.visible} waiting, "
            f"{backlog} at the start.",
        )
    return look


def assess_calm(
    before: Look, facts: Facts, planned: Mapping[str, Any], rules: Mapping[str, float]
) -> Look:
    """Judge whether the queue stays calm now that settings are back."""
    number = before.number + 1
    clear = clear_below(max(1, planned["backlog"]), rules)
    calm = before.calm + 1 if facts.visible <= clear else 0
    bad = 0 if calm else before.bad + 1
    look = Look(number, "wait", f"{facts.visible} waiting.", facts.visible, calm, bad, 1.0)
    if calm >= rules["calm_periods"]:
        return ended(
            look,
            "relieved",
            f"{facts.queue} is drained and stays calm: {facts.visible} waiting, "
            f"{planned['backlog']} at the start.",
        )
    if relapsed(look, rules):
        return ended(
            look,
            "recurred",
            f"{facts.queue} fills again with its settings as they were ({facts.visible} waiting): "
            f"the cap is too low for good.",
        )
    return look


def _assess_protection(before: Look, facts: Facts, rules: Mapping[str, float], number: int) -> Look:
    failing = facts.failing_share
    healthy = failing is not None and failing < rules["failing_share"]
    healthy = healthy and not is_slow(facts, rules)
    calm = before.calm + 1 if healthy else 0
    words = f"failing {percent(failing)}, {ms(facts.work)} a message"
    look = Look(number, "wait", f"{facts.function}: {words}.", facts.visible, calm)
    if calm >= rules["calm_periods"]:
        return ended(look, "protected", f"{facts.function} is healthy again: {words}.")
    if number > rules["grace_periods"] + rules["baseline_periods"]:
        return ended(look, "ineffective", f"{facts.function} has not recovered: {words}.")
    return look


def _worse(facts: Facts, planned: Mapping[str, Any], rules: Mapping[str, float]) -> str:
    if planned["goal"] == "protect":
        return ""
    failing = facts.failing_share or 0.0
    if failing >= rules["failing_share"] and failing > (planned["failing_share"] or 0.0):
        return (
            f"{percent(failing)} of {facts.function}'s work fails now, "
            f"{percent(planned['failing_share'])} before the change."
        )
    was = planned["dlq_visible"]
    if facts.dlq_visible is not None and was is not None:
        new = facts.dlq_visible - was
        if new > clear_below(planned["backlog"], rules):
            return f"{new} more messages are in {facts.dlq} than before the change."
    return ""


def _looks_allowed(planned: Mapping[str, Any], facts: Facts, rules: Mapping[str, float]) -> int:
    predicted = planned["predicted_seconds"]
    if predicted is None:
        return int(rules["watch_periods"])
    periods = math.ceil(predicted / facts.period_seconds)
    return int(rules["grace_periods"] + rules["overrun_factor"] * max(periods, 5))


def _eta(before: Look, facts: Facts) -> int | None:
    if before.measure is None or before.measure <= facts.visible:
        return None
    fell = before.measure - facts.visible
    return math.ceil(facts.visible / fell * facts.period_seconds)


def _words(facts: Facts, done: float) -> str:
    return f"{facts.visible} waiting, {done:.0%} drained, out {per_second(facts.drain_rate)}."


def _draining(facts: Facts, verification: Mapping[str, float]) -> bool:
    """Return whether the depth falls from period to period, fast enough to be waited for."""
    steps = list(pairwise(facts.depths))
    if len(steps) < _STEPS_OF_A_TREND or any(later >= earlier for earlier, later in steps):
        return False
    fell = (facts.depths[0] - facts.depths[-1]) / len(steps)
    return facts.visible / fell <= verification["watch_periods"]


def _age(series: Sequence[float]) -> str:
    return duration(series[-1]) if series else "unknown"
