"""What a dead-letter queue holds, whether and how fast it may be replayed, when to stop: pure.

Nothing here has a client or a clock. Counts are messages, times are seconds (moments: seconds since
1970), rates are messages a second. What becomes of one letter is decided in ``letters``; how many
are moved and how, in ``mover``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from oncall import elsewhere, queues, unarchived
from oncall.plans import NO_CAUSE, Look, Plan, diagnosed, ended
from oncall.words import duration, percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from oncall.plans import Cause, Diagnosis

QUEUE = "queue"
DELIVERABLE: Mapping[str, str] = {
    "queue": "an SQS queue",
    "function": "asynchronous calls of a Lambda function",
    "rule": "an EventBridge rule's target",
    "topic": "an SNS subscription",
}
"""What dead letters may be of and can be replayed: to whom they failed, never to queue, topic or
bus at large, where others would get them as well."""
_OTHERS: Mapping[str, str] = {
    "record": "records of a custom event bus, which are not the events themselves",
    "unknown": "something that does not say where it comes from",
}
_FIRST_LINE = 3
_HIDDEN_SECONDS = 300
"""How long letters in the hand of a worker that died stay hidden (``mover.Order``)."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """Who works on what is replayed, and how that fares."""

    function: str | None = None
    """Its name; ``None`` where something else than a function consumes, or nothing."""
    state: str = "enabled"
    """Of its event source mapping."""
    reserved: int | None = None
    failing_share: float | None = None
    """Share of invocations that fail; ``None`` without datapoints."""
    slow: bool = False
    backlog: int = 0
    """Messages that wait or are being worked on where letters are sent to."""
    fate_seconds: int = 0
    """How long a letter may take to fail for good and come back."""


def consumer_of(facts: queues.Facts, rules: Mapping[str, float]) -> Consumer:
    """Return a queue's consumer.

    What was received and not yet deleted counts as failing in ``queues``, which says much of a full
    queue and nothing of ten letters that are being worked on: here only failed invocations count,
    and that letters come back shows by itself. Slow is a call that takes nearly its timeout: what
    is usual cannot be told, as the hour before is the outage that the letters come from.
    """
    called = sum(facts.invocations)
    return Consumer(
        function=facts.function,
        state=facts.mapping_state.lower() or "enabled",
        reserved=facts.reserved,
        failing_share=sum(facts.errors) / called if called else None,
        slow=queues.is_slow(replace(facts, usual_work=None), rules),
        backlog=facts.backlog,
        fate_seconds=(facts.max_receive_count or 1) * facts.visibility_timeout,
    )


@dataclass(frozen=True, slots=True)
class Facts:
    """What ``inspect_dead_letters`` has read of a dead-letter queue and of where it is replayed."""

    dlq: str
    dlq_arn: str
    period_seconds: int
    now: float
    fifo: bool
    visible: int
    in_flight: int
    retention: int
    """Seconds that the queue keeps a message, counted from when it was first sent."""
    own_dlq: str | None = None
    """A dead-letter queue of its own: reading here may push messages on."""
    kinds: Mapping[str, int] = field(default_factory=dict)
    """Sampled letters by what they are of: a key of ``DELIVERABLE``, ``record`` or ``unknown``."""
    kind: str = QUEUE
    """What the run replays."""
    sources: Sequence[str] = ()
    """ARNs of the queues whose dead letters come here (SQS ``ListDeadLetterSourceQueues``)."""
    source: str | None = None
    """The one whose letters are replayed."""
    sampled: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)
    """Sampled letters by what would become of them: ``replay``, or another word and its rule."""
    oldest_sent: float | None = None
    rules: Sequence[Mapping[str, Any]] = ()
    rules_from: str = ""
    """The SSM parameter that the owner's rules stand in."""
    rules_wrong: str = ""
    """What is wrong with them, in a sentence."""
    drops: bool = False
    """Whether a rule drops letters."""
    idempotent: bool = False
    """Whether the owner has declared that the consumer may get a message twice."""
    destination: str | None = None
    destination_opted_in: bool = False
    destination_trouble: str = ""
    """Why it cannot be sent to, in a sentence."""
    destination_fifo: bool = False
    destination_max_bytes: int = 0
    deployed_at: float | None = None
    """When the consumer was last changed."""
    consumer: Consumer | None = None
    archive: str = ""
    """The incident whose archive is replayed instead of the queue."""
    archived: int = 0
    """Letters in that archive that were not replayed."""
    owners_rate: float | None = None
    """Letters a second that the destination's owner allows at most."""
    owners_rate_wrong: str = ""
    """What is wrong with what the owner has said of that, in a sentence."""
    arrived: Arrived | None = None
    """What a look has found of letters that have come since the plan; ``None``: it had no need."""
    archive_tag: str = ""
    """The tag ``unarchived.ARCHIVE_TAG``, by which the owner forbids copies."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether letters go to another account or Region."""
        where = self.destination
        return where is not None and elsewhere.is_elsewhere(self.dlq_arn, where)

    @property
    def letters(self) -> int:
        """How many there are to replay."""
        return self.archived if self.archive else self.visible

    @property
    def expires_at(self) -> float | None:
        """When the oldest sampled letter is lost; ``None`` if unknown, or if the archive has it.

        A standard queue's dead letters keep the time at which they were first sent (SQS Developer
        Guide, "Using dead-letter queues"); a FIFO queue's begin anew, so this is the earliest.
        """
        if self.oldest_sent is None or self.archive:
            return None
        return self.oldest_sent + self.retention


@dataclass(frozen=True, slots=True)
class Arrived:
    """A sample of the dead-letter queue, by whether letters have come since the plan."""

    sampled: int
    back: int
    """Replayed by this run, and dead again."""
    new: int
    """Of those sent since, those that it has not replayed."""


def kind_of(letter: Mapping[str, Any]) -> str:
    """Return what a dead letter is of, by what it carries.

    SQS names the source queue (``DeadLetterQueueSourceArn``). Lambda adds RequestID and ErrorCode
    to an asynchronous event (Developer Guide, "Adding a dead-letter queue"), EventBridge RULE_ARN
    and TARGET_ARN (User Guide, "Using dead-letter queues to process undelivered events"); a custom
    event bus's record lists ``failedMessages``; SNS sends its own envelope.
    """
    if letter["Attributes"].get("DeadLetterQueueSourceArn"):
        return QUEUE
    attributes = letter.get("MessageAttributes") or {}
    if "RequestID" in attributes and "ErrorCode" in attributes:
        return "function"
    if "RULE_ARN" in attributes:
        return "rule"
    try:
        body = json.loads(letter["Body"])
    except (ValueError, RecursionError):
        return "unknown"
    if isinstance(body, dict) and "failedMessages" in body:
        return "record"
    if isinstance(body, dict) and {"Type", "TopicArn", "Message"} <= body.keys():
        return "topic"
    return "unknown"


def facts_from(data: Mapping[str, Any]) -> Facts:
    """Read facts back from a state machine's JSON."""
    values = dict(data)
    if values.get("consumer"):
        values["consumer"] = Consumer(**values["consumer"])
    values.pop("arrived", None)  # of looks, which do not come this way
    return Facts(**values)


def seen(facts: Facts) -> dict[str, Any]:
    """Return the numbers that later looks compare with."""
    consumer = facts.consumer
    return {
        "letters": facts.letters,
        "lying": facts.visible + facts.in_flight,
        "looked_at": facts.now,
        "failing_share": consumer.failing_share if consumer else None,
        "backlog": consumer.backlog if consumer else 0,
        "fate_seconds": consumer.fate_seconds if consumer else 0,
    }


def evidence(facts: Facts) -> tuple[str, ...]:
    """Return the numbers that a human would ask for; never a letter's content."""
    oldest = "unknown" if facts.oldest_sent is None else f"{_age(facts)} old"
    if facts.expires_at is not None:
        oldest += f", lost in {duration(max(0, facts.expires_at - facts.now))}"
    sampled = ", ".join(f"{count} {name}" for name, count in _most(facts.classes))
    lines = [
        f"{facts.visible} letters waiting, {facts.in_flight} in flight, oldest {oldest}",
        f"sample of {facts.sampled}: {sampled or 'nothing received'}",
        f"letters of {', '.join(map(_name, facts.sources)) or DELIVERABLE[facts.kind]}",
    ]
    if facts.rules_from:
        lines.append(f"{len(facts.rules)} rules from {facts.rules_from}")
    consumer = facts.consumer
    if facts.is_elsewhere:
        waiting = f"{consumer.backlog}" if consumer else "unknown how many"
        lines.append(f"{_source(facts)}: {waiting} waiting or in flight; its consumer is not seen")
    elif consumer is not None:
        deployed = "unknown"
        if facts.deployed_at is not None:
            deployed = f"{duration(facts.now - facts.deployed_at)} ago"
        lines.append(
            f"{_source(facts)}: {consumer.backlog} waiting or in flight; "
            f"{consumer.function or 'no function'} {consumer.state}, failing "
            f"{percent(consumer.failing_share)}, changed {deployed}"
        )
    if facts.archive:
        lines.append(f"{facts.archived} letters in the archive of {facts.archive}")
    return tuple(lines)


def _age(facts: Facts) -> str:
    return duration(facts.now - (facts.oldest_sent or facts.now))


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _name(arn: str) -> str:
    return arn.rsplit(":", 1)[-1]


def diagnose(facts: Facts, rules: Mapping[str, float]) -> Diagnosis:
    """Name what keeps the letters from being replayed, or that nothing does."""
    causes = (
        _kind_cause(facts),
        unarchived.cause(facts),
        _place_cause(facts),
        _consent_cause(facts),
        _health_cause(facts, rules),
    )
    return diagnosed(evidence(facts), causes, ("replayable", _healthy_words(facts)))


def _kind_cause(facts: Facts) -> Cause:
    """Find what the letters are, and whether there are any."""
    name = facts.dlq
    if not facts.letters:
        return "empty", f"There is nothing to replay in {facts.archive or name}."
    if facts.own_dlq:
        return (
            "own_dlq",
            (
                f"{name} has a dead-letter queue of its own, {facts.own_dlq}: each reading brings "
                f"its letters nearer to it."
            ),
        )
    if facts.rules_wrong:
        return "bad_rules", facts.rules_wrong
    for kind, words in _OTHERS.items():
        if kind in facts.kinds:
            return "other_kind", f"{name} holds {words}."
    if len(facts.kinds) > 1:
        several = ", ".join(DELIVERABLE[kind] for kind, _ in _most(facts.kinds))
        return "several_kinds", f"{name} holds letters of {several}, which go different ways."
    return NO_CAUSE


def _place_cause(facts: Facts) -> Cause:
    """Find where they go."""
    if facts.destination is None:
        if facts.kind != QUEUE:
            return (
                "no_target",
                (
                    f"{facts.dlq} holds letters of {DELIVERABLE[facts.kind]}: say to whom they go, "
                    f'with {{"dlq": "{facts.dlq}", "deliver_to": "checkout"}}.'
                ),
            )
        if len(facts.sources) > 1:
            several = ", ".join(map(_name, facts.sources))
            return (
                "several_sources",
                (
                    f"{facts.dlq} holds the letters of {several}: start one run for each, with "
                    f'{{"dlq": "{facts.dlq}", "source": "{_name(facts.sources[0])}"}}.'
                ),
            )
        if facts.sources:
            only = _name(facts.sources[0])
            return (
                "other_source",
                (
                    f"{facts.dlq} holds the letters of {only}, not of the queue that was named: "
                    f'start it with {{"dlq": "{facts.dlq}", "source": "{only}"}}.'
                ),
            )
        return "no_source", f"No SQS queue names {facts.dlq} as its dead-letter queue."
    if facts.destination == facts.dlq_arn:
        return "itself", f"{facts.dlq} is the dead-letter queue itself: name another to deliver to."
    if facts.kind == QUEUE and ":lambda:" in facts.destination:
        return (
            "no_queue",
            (
                f"Letters of an SQS queue go to a queue, and {_name(facts.destination)} is a "
                f"function: leave deliver_to out, or give a queue's ARN."
            ),
        )
    return NO_CAUSE


def _consent_cause(facts: Facts) -> Cause:
    """Find whether they may be sent there, and are taken."""
    if facts.destination is None:
        return NO_CAUSE
    if facts.destination_trouble:
        return "unreachable", facts.destination_trouble
    if facts.is_elsewhere and not facts.destination_opted_in:
        return "not_listed", elsewhere.not_listed(facts.destination)
    if not facts.destination_opted_in:
        return (
            "not_opted_in",
            f"{_name(facts.destination)} is not opted in to automation, so I send nothing to it.",
        )
    if facts.owners_rate_wrong:
        return "bad_rate", facts.owners_rate_wrong
    if facts.kind == QUEUE and facts.destination_fifo != facts.fifo:
        return (
            "other_type",
            f"{facts.dlq} and {_source(facts)} are not both FIFO, which SQS asks for.",
        )
    return NO_CAUSE


def _health_cause(facts: Facts, rules: Mapping[str, float]) -> Cause:
    """Find whether the consumer would take them now."""
    consumer = facts.consumer
    if consumer is None or consumer.function is None:
        return NO_CAUSE  # what consumes it is not a function: the canary tells
    name, failing = consumer.function, consumer.failing_share
    if consumer.state != "enabled":
        return "consumer_disabled", f"{name}'s consumer is {consumer.state}."
    if consumer.reserved == 0:
        return "consumer_stopped", f"{name}'s reserved concurrency is 0: somebody has stopped it."
    if failing is not None and failing >= rules["failing_share"]:
        return (
            "consumer_failing",
            f"{failing:.0%} of {name}'s work fails now: what is replayed would come back.",
        )
    if consumer.slow:
        return "consumer_slow", f"{name} takes nearly its timeout: what lies behind it is slow."
    return NO_CAUSE


def _healthy_words(facts: Facts) -> str:
    consumer = facts.consumer
    if consumer is None or not consumer.function:
        back = "" if facts.is_elsewhere else "back "
        return f"{facts.letters} letters can go {back}to {_source(facts)}."
    since = ""
    deployed, oldest = facts.deployed_at, facts.oldest_sent
    if deployed is not None and oldest is not None and deployed > oldest:
        since = " and was changed since the oldest of them failed"
    return f"{consumer.function} works{since}: its {facts.letters} letters can be tried again."


def plan(diagnosis: Diagnosis, facts: Facts, limits: Mapping[str, float]) -> Plan:
    """Plan a canary, then a replay that ramps up; whatever is in the way becomes a human's."""
    if diagnosis.cause == "empty" and not facts.archive:
        return Plan("watch", "replay", (), "Change nothing and see that it stays empty.")
    if diagnosis.cause != "replayable":
        return Plan("human", "replay", (), f"{diagnosis.sentence} I have replayed nothing.")
    usual, highest = _rates(facts, limits)
    fastest = next((rate for rate in _doubled(usual, highest) if _suffices(rate, facts, limits)), 0)
    if not fastest:
        return Plan("human", "replay", (), _too_slow(highest, facts, limits))
    takes = _seconds(facts.letters, fastest, facts.period_seconds, limits)
    first = min(limits["first_rate"], fastest)
    order = {
        "destination": facts.destination,
        "kind": facts.kind,
        "source": facts.source,
        "archive": facts.archive,
        "rules": [dict(rule) for rule in facts.rules],
        "letters": facts.letters,
        "canary": min(int(limits["canary_letters"]), facts.letters),
        "canary_periods": int(limits["canary_periods"]),
        "first_rate": first,
        "max_rate": fastest,
        # Each worker would read all of an archive, and break a FIFO queue's order.
        "workers": 1 if facts.fifo or facts.archive else int(limits["workers"]),
    }
    if facts.archive_tag:
        order |= {"mover": unarchived.NATIVE, "workers": 1}
        return Plan(
            unarchived.ACTION,
            "replay",
            (),
            unarchived.sentence(order, takes),
            predicted_seconds=math.ceil(takes),
            order=order,
        )
    return Plan(
        _action(facts, faster=fastest > usual),
        "replay",
        (),
        f"Archive every letter, replay {order['canary']} to {_source(facts)}, see that they "
        f"{_proof(facts)}, then the rest at {first:.0f}/s up to {fastest:.0f}/s: about "
        f"{duration(takes)}.{_faster_words(usual, fastest, facts, limits)}{_unseen(facts)}"
        f"{_sample_words(facts)}",
        predicted_seconds=math.ceil(takes),
        order=order,
    )


def _rates(facts: Facts, limits: Mapping[str, float]) -> tuple[float, float]:
    """Return the highest rate that needs no question of its own, and that which a human may allow.

    A FIFO queue keeps its order and so has one worker, SQS's own task has a limit of its own; what
    an owner has said is never exceeded.
    """
    usual, highest = limits["max_rate"], limits["highest_rate"]
    if facts.fifo:
        usual = highest = min(usual, limits["fifo_rate"])
    if facts.owners_rate is not None:
        usual = highest = min(usual, facts.owners_rate)
    if facts.archive_tag:
        usual = highest = min(usual, unarchived.FASTEST)
    return usual, highest


def _doubled(rate: float, highest: float) -> Iterator[float]:
    while rate < highest:
        yield rate
        rate *= 2
    yield highest


def _left(facts: Facts) -> float:
    """Return the seconds until the first letter is lost."""
    return math.inf if facts.expires_at is None else facts.expires_at - facts.now


def _suffices(rate: float, facts: Facts, limits: Mapping[str, float]) -> bool:
    takes = _seconds(facts.letters, rate, facts.period_seconds, limits)
    return takes <= min(_left(facts), limits["run_seconds"] * limits["share_of_run"])


def _too_slow(highest: float, facts: Facts, limits: Mapping[str, float]) -> str:
    takes = _seconds(facts.letters, highest, facts.period_seconds, limits)
    if takes > _left(facts):
        return (
            f"The oldest letter is lost in {duration(max(0, _left(facts)))}, and {facts.letters} "
            f"take {duration(takes)} at {highest:.0f}/s, the most that I may. Lengthen the queue's "
            f"retention first: `aws sqs set-queue-attributes --queue-url URL --attributes "
            f"MessageRetentionPeriod=1209600`."
        )
    return (
        f"{facts.letters} letters take {duration(takes)} at {highest:.0f}/s, the most that I may, "
        f"and a run has no more than {duration(limits['run_seconds'] * limits['share_of_run'])}. "
        f"Replay them in parts, with the rules' older_than_seconds."
    )


def _faster_words(usual: float, rate: float, facts: Facts, limits: Mapping[str, float]) -> str:
    if rate <= usual:
        return ""
    takes = _seconds(facts.letters, usual, facts.period_seconds, limits)
    why = "a run may last"
    if takes > _left(facts):
        why = f"there is: the oldest letter is lost in {duration(_left(facts))}"
    return f" At the usual {usual:.0f}/s it takes {duration(takes)}, longer than {why}."


def _action(facts: Facts, *, faster: bool) -> str:
    """Return what has to be asked for: others, dropping, haste, a consumer not idempotent."""
    if facts.is_elsewhere or (facts.kind == QUEUE and facts.destination != facts.source):
        return "replay_elsewhere"
    if facts.drops:
        return "replay_and_drop"
    if faster:
        return "replay_faster"
    return "replay" if facts.idempotent else "replay_undeclared"


def _proof(facts: Facts) -> str:
    """Return what a canary shows."""
    if not facts.is_elsewhere:
        return "do not come back"
    return "are taken" if facts.consumer else "are accepted"


def _unseen(facts: Facts) -> str:
    if facts.destination is None or not facts.is_elsewhere:
        return ""
    waiting = facts.consumer.backlog if facts.consumer else None
    return f" {elsewhere.unseen(facts.destination, waiting)}"


def _sample_words(facts: Facts) -> str:
    others = [(name, count) for name, count in _most(facts.classes) if name != "replay"]
    if not others:
        return ""
    said = ", ".join(f"{count} {name}" for name, count in others[:_FIRST_LINE])
    return f" Of {facts.sampled} sampled: {said}."


def _seconds(letters: int, fastest: float, period: int, limits: Mapping[str, float]) -> float:
    """Return how long it takes: a canary's fate, then rounds that double until they are fastest."""
    seconds = limits["canary_periods"] * period
    rate, left = limits["first_rate"], float(letters)
    length = limits["round_periods"] * period
    while left > 0:
        if rate >= fastest:
            return seconds + left / fastest
        seconds += min(length, left / rate)
        left -= rate * length
        rate *= 2
    return seconds


def first_carry(planned: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the first look is handed: nothing moved yet, at the plan's first rate."""
    order = planned["order"]
    return {
        "total": {},
        "rate": order.get("first_rate", 0),
        "workers": 1,
        "rounds": 0,
        "ended": "",
        "effect": "",
    }


def add_up(total: Mapping[str, Any], tallies: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Add the counts of worker rounds to those before; ``left`` is what the latest round left."""
    added = {name: int(total.get(name, 0)) for name in _COUNTED}
    for tally in tallies:
        for name in _COUNTED:
            added[name] += int(tally.get(name, 0))
    left = int(total.get("left", 0))
    if tallies:
        left = sum(
            count
            for tally in tallies
            for reason, count in tally.get("left", {}).items()
            if reason not in _NOT_YET
        )
    return {**added, "left": left}


_NOT_YET = frozenset({"deadline", "stopped", "failed", "lapsed", "throttled", "unreachable"})
"""Reasons of ``mover.Tally.left`` for which a letter is only left for another round."""
_COUNTED = ("archived", "replayed", "quarantined", "dropped", "bounced", "possible_duplicates")


def effect(total: Mapping[str, int], dlq: str, incident: str) -> str:
    """Say what has been moved: no setting shows it, and nothing undoes it.

    ``unknown`` are letters of dead workers where the queue is empty now, ``unsure`` where it may
    hold them still.
    """
    if not total.get("archived"):
        return unarchived.effect(total)
    parts = [f"{total['replayed']} letters replayed"]
    if total.get("unknown"):
        parts.append(f"{total['unknown']} {_UNKNOWN}")
    if total.get("unsure"):
        more = f"up to {total['unsure']} more by a worker that died"
        parts.append(f"{more}, what it has not sent lies in {dlq}")
    for name, word in (("quarantined", "quarantined"), ("dropped", "dropped")):
        if total[name]:
            parts.append(f"{total[name]} {word}")
    if total["left"]:
        parts.append(f"{total['left']} left in {dlq}")
    return f"{', '.join(parts)}; all of them are in the archive of {incident}."


def under_way(said: str, incident: str, tells: str = "") -> str:
    """Say what has been moved while a round is moving more: what holds if nobody counts it."""
    done = said.partition(_UNDER_WAY)[0].strip()
    tells = tells or f"the archive of {incident} tells what became of it."
    return f"{done} {_UNDER_WAY}: {tells}".strip()


_UNKNOWN = "of a worker that died, which deletes only what is sent"
_UNDER_WAY = "A round was under way"


def assess(
    before: Look,
    facts: Facts,
    tallies: Sequence[Mapping[str, Any]],
    planned: Mapping[str, Any],
    rules: Mapping[str, float],
    *,
    incident: str,
) -> Look:
    """Judge a round, or the canary, and set the rate of the next one.

    ``tallies`` are those of the workers since the look before (``mover.Tally`` as plain values).
    The verdict ``go`` asks for another round, ``relieved`` says that nothing is left to move.
    """
    number = before.number + 1
    carry = {**(before.carry or first_carry(planned))}
    total = add_up(carry["total"], tallies)
    if tallies:
        carry["ended"] = "empty" if all(t["ended"] == "empty" for t in tallies) else "more"
    carry |= {"total": total, "effect": effect(total, facts.dlq, incident)}
    letters = max(1, planned["letters"])
    done = min(1.0, (total["replayed"] + total["quarantined"] + total["dropped"]) / letters)
    words = _round_words(total, carry, planned)
    look = Look(number, "wait", words, done=done, carry=carry)
    if not planned["order"]:
        return _watched(look, facts)
    broken = next((str(t["trouble"]) for t in tallies if t["ended"] == "failed"), "")
    worse = f"A worker had to stop: {broken}." if broken else _refused(total, tallies, planned)
    worse = worse or _worse(total, facts, planned, rules)
    if worse:
        return ended(look, "worse", f"{worse} I have stopped.")
    waiting = _waiting(facts, planned)
    busy = waiting > rules["waiting_share"] * max(1, total["replayed"])
    canary = not carry["rounds"]
    if canary and busy:
        if number > planned["order"]["canary_periods"]:
            return ended(
                look,
                "ineffective",
                f"The canary's {total['replayed']} letters still wait in {_source(facts)} after "
                f"{number} looks: nothing takes them.",
            )
        return _with_sentence(look, f"{waiting} letters of the canary still wait.")
    if carry["ended"] == "empty" and (planned["order"].get("archive") or not facts.visible):
        hidden = 0 if planned["order"].get("archive") else facts.in_flight - total["left"]
        if hidden > 0:
            return _hidden(look, before, facts, hidden)
        return ended(
            look, "relieved", f"{facts.dlq} is worked off{_not_seen(facts)}: {_counts(total)}."
        )
    if busy and before.bad < rules["patience_periods"]:
        slower = max(1.0, carry["rate"] / 2)
        held = {**carry, "rate": slower}
        return Look(
            number,
            "wait",
            f"{waiting} wait in {_source(facts)}; I hold, and go on at {slower:.0f}/s.",
            bad=before.bad + 1,
            done=done,
            carry=held,
        )
    if busy:
        return ended(look, "ineffective", f"{waiting} letters pile up in {_source(facts)}.")
    return _go_on(look, planned, facts)


def _hidden(look: Look, before: Look, facts: Facts, count: int) -> Look:
    """Wait for letters that nobody can receive now, as long as a dead worker may hold them."""
    if before.bad * facts.period_seconds > _HIDDEN_SECONDS:
        return ended(
            look,
            "ineffective",
            f"{count} letters have been in flight for {duration(_HIDDEN_SECONDS)}: somebody else "
            f"receives from {facts.dlq}.",
        )
    words = (
        f"{count} letters are in flight, in a dead worker's hand or somebody's; I wait for them."
    )
    return replace(look, sentence=words, bad=before.bad + 1)


def _watched(look: Look, facts: Facts) -> Look:
    """Judge a queue in which there was nothing: with letters in it, it wants another plan."""
    if facts.visible or facts.in_flight:
        more = facts.visible + facts.in_flight
        return ended(look, "ineffective", f"{more} letters have come into {facts.dlq} since.")
    return ended(look, "relieved", f"{facts.dlq} is empty.")


def _go_on(look: Look, planned: Mapping[str, Any], facts: Facts) -> Look:
    order, carry = planned["order"], dict(look.carry)
    faster = min(order["max_rate"], 2 * carry["rate"]) if carry["rounds"] else carry["rate"]
    workers = order["workers"] if faster >= order["max_rate"] else 1
    carry |= {"rate": faster, "workers": workers, "rounds": carry["rounds"] + 1}
    eta = math.ceil(facts.letters / faster) if faster else None
    return Look(look.number, "go", look.sentence, done=look.done, eta_seconds=eta, carry=carry)


def assess_calm(
    before: Look,
    facts: Facts,
    planned: Mapping[str, Any],
    rules: Mapping[str, float],
    *,
    incident: str,
) -> Look:
    """Judge whether what was replayed stays away from the dead-letter queue."""
    number = before.number + 1
    said = effect(before.carry["total"], facts.dlq, incident)
    carry = {**before.carry, "effect": said}
    words = _round_words(carry["total"], carry, planned)
    look = Look(number, "wait", words, done=1.0, carry=carry)
    worse = _worse(carry["total"], facts, planned, rules)
    if worse:
        return ended(look, "recurred", f"{worse} The cause is not mended.")
    fate = math.ceil(planned["fate_seconds"] / facts.period_seconds)
    enough = min(rules["calm_most_periods"], max(rules["calm_periods"], fate))
    if number < enough:
        return look
    if not planned["order"]:
        return ended(look, "relieved", f"{facts.dlq} is empty and stays so.")
    return ended(
        look,
        "relieved",
        f"{facts.dlq} is worked off and stays so{_not_seen(facts)}: {_counts(carry['total'])}.",
    )


def arrivals(total: Mapping[str, int], facts: Facts, planned: Mapping[str, Any]) -> int:
    """Return how many letters have come since the plan, by the depth that SQS calls approximate."""
    moved = sum(total.get(name, 0) for name in ("replayed", "quarantined", "dropped", "unknown"))
    taken = 0 if planned["order"].get("archive") else moved
    more = facts.visible + facts.in_flight - max(0, planned["lying"] - taken)
    return int(max(0, more, total.get("bounced", 0)))


def needs_sample(
    total: Mapping[str, int],
    facts: Facts,
    planned: Mapping[str, Any],
    rules: Mapping[str, float],
) -> bool:
    """Return whether so many have come that it matters whether they are replayed ones."""
    order = planned["order"]
    if not order or unarchived.is_native(order):  # whose letters bear no mark
        return False
    return arrivals(total, facts, planned) - total.get("bounced", 0) > rules["bounced_letters"]


def come_back(total: Mapping[str, int], facts: Facts, planned: Mapping[str, Any]) -> int:
    """Return how many replayed letters have come back.

    Those that workers have met are counted. Others are among what has arrived since; which share
    of it they are tells a sample. Where none tells, all of it counts.
    """
    known = total.get("bounced", 0)
    unknown = arrivals(total, facts, planned) - known
    found = facts.arrived
    if found is None:
        return int(known + unknown)
    if found.sampled >= facts.visible:
        return int(known + min(unknown, found.back))
    told = found.back + found.new
    return int(known + math.ceil(unknown * found.back / told if told else unknown))


def _worse(
    total: Mapping[str, int], facts: Facts, planned: Mapping[str, Any], rules: Mapping[str, float]
) -> str:
    consumer = facts.consumer
    failing = (consumer.failing_share if consumer else None) or 0.0
    if failing >= rules["failing_share"] and failing > (planned["failing_share"] or 0.0):
        return (
            f"{percent(failing)} of {consumer.function if consumer else 'its'}'s work fails now, "
            f"{percent(planned['failing_share'])} before."
        )
    back, replayed = come_back(total, facts, planned), total.get("replayed", 0)
    if back > max(rules["bounced_letters"], rules["bounce_share"] * replayed):
        found = "of the replayed letters are back in" if facts.arrived else "letters have come into"
        return f"{back} {found} {facts.dlq}, {replayed} were replayed."
    return ""


def _refused(
    total: Mapping[str, int], tallies: Sequence[Mapping[str, Any]], planned: Mapping[str, Any]
) -> str:
    """Say why nothing could be sent, where that is for a code of AWS's and not for the letters."""
    rules = {rule["name"] for rule in planned["order"]["rules"]}
    reasons = {reason for tally in tallies for reason in tally["left"]} - rules
    codes = sorted(reason for reason in reasons if not reason.islower())
    if total["replayed"] or not codes:
        return ""
    return f"{_name(planned['order']['destination'])} takes none of them: {', '.join(codes)}."


def _waiting(facts: Facts, planned: Mapping[str, Any]) -> int:
    return max(0, facts.consumer.backlog - planned["backlog"]) if facts.consumer else 0


def _with_sentence(look: Look, sentence: str) -> Look:
    return ended(look, "wait", sentence)


def _round_words(
    total: Mapping[str, int], carry: Mapping[str, Any], planned: Mapping[str, Any]
) -> str:
    return f"{_counts(total)}, of {planned['letters']}; {carry['rate']:.0f}/s."


def _counts(total: Mapping[str, int]) -> str:
    parts = [f"{total.get('replayed', 0)} replayed"]
    if total.get("unknown"):
        parts.append(f"{total['unknown']} {_UNKNOWN}")
    parts += [
        f"{total[name]} {name}" for name in ("quarantined", "dropped", "left") if total.get(name)
    ]
    return ", ".join(parts)


def _source(facts: Facts) -> str:
    where = str(facts.destination)
    return elsewhere.named(where) if facts.is_elsewhere else _name(where)


def _not_seen(facts: Facts) -> str:
    return elsewhere.not_seen(str(facts.destination)) if facts.is_elsewhere else ""
