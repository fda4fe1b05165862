"""Whether traffic has moved and the service works again, and how long that took: pure.

``planned`` is the plan's document (``Plan.document``), with ``order`` as in ``failover_plan`` and
the numbers of ``failover_plan.seen``. ``rules`` (the contract's ``verification``) are read for

- ``probes_share``, ``error_share``: from these shares on, failing is sick (as in ``failover``)
- ``moved_share``: from this share of traffic on, it has moved, e.g. 0.9
- ``calm_periods``: looks in a row at which all has to be well, e.g. 3
- ``grace_periods``: looks before errors count as worse, e.g. 3: new Regions start cold
- ``watch_periods``: looks after which it has not helped, e.g. 30
- ``patience_periods``: bad looks in a row that end the watch of a Region that had been well, e.g. 3
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from oncall.failover import FAILBACK
from oncall.plans import Look, ended, relapsed
from oncall.words import duration, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncall.incident import Entry
    from oncall.service import Role

_FULL, _HALF = 100, 50
_CHANGES_NOTHING = frozenset({"drain", "verify"})
NO_ANSWER = "none"
OTHER = "other"


@dataclass(frozen=True, slots=True)
class Seen:
    """What ``verify_failover`` has read for one look; roles are those of the service file."""

    now: float
    period_seconds: int
    goes_to: Role
    answers: Mapping[str, str] = field(default_factory=dict)
    """By each name server of the zone, asked without recursion: the role whose value it gave,
    ``other`` for a value of neither and ``none`` for no answer."""
    insync: bool | None = None
    """Whether the last change of records is ``INSYNC`` (``GetChange``); ``None``: none was made,
    or Route 53's control plane does not tell."""
    probes: Mapping[str, bool] = field(default_factory=dict)
    """Whether the public name answers as it should, by the Region that the probe runs in."""
    traffic_share: float | None = None
    """Of requests that arrive where traffic goes to."""
    error_share: float | None = None
    """Of requests there that fail; ``None`` without datapoints."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run has achieved, beside what was promised."""

    rto_seconds: float | None
    """From the outage's begin to the first of the calm looks; ``None`` if the begin is unknown."""
    rpo_seconds: float | None
    """Seconds of writes missing, by the plan's estimate; ``None`` if unknown."""
    sentence: str


def measured(planned: Mapping[str, Any], recovered_at: float) -> Measured:
    """Return recovery time and point against the service's targets, and both in words.

    A failback ends no outage, so it is measured by neither.
    """
    if planned["order"].get("direction") == FAILBACK:
        return Measured(None, None, "")
    began, loss = planned["sick_since"], planned["order"]["loss_seconds"]
    took = None if began is None else max(0.0, recovered_at - began)
    return Measured(
        took,
        loss,
        f"{_against('Recovery time', took, planned['rto_seconds'])}; "
        f"{_against('missing writes, by estimate', loss, planned['rpo_seconds'])}.",
    )


def _against(what: str, seconds: float | None, target: float) -> str:
    if seconds is None:
        return f"{what} unknown (target {duration(target)})"
    kept = "kept" if seconds <= target else "missed"
    return f"{what} {duration(seconds)} (target {duration(target)}, {kept})"


def effect(order: Mapping[str, Any], done: Sequence[str]) -> str:
    """Say what has been done and stays; ``done``: ids of the steps that were made.

    No setting of the record shows it, so it belongs into ``Look.carry["effect"]`` and into the
    incident's ``progress``; each comes with its undo, or with why there is none.
    """
    made = [step for step in order["steps"] if step["id"] in set(done) and step["undo"]]
    lost = [
        step for step in order["steps"] if step["id"] in set(done) and step["verb"] == "promote"
    ]
    told = [f"{step['sentence']} (undo: `{step['undo']}`)" for step in made]
    told += [f"{s['sentence']} ({s['no_undo_because']})" for s in lost if not s["undo"]]
    return f"Done and left so: {'; '.join(told)}." if told else ""


def effect_of(entries: Sequence[Entry], order: Mapping[str, Any]) -> str:
    """Say what a timeline's steps have done, and what of the latest plan is missing.

    Commands of what is missing come last: they are the longest, and long texts are cut.
    """
    steps = [entry.data["step"] for entry in entries if "step" in entry.data]
    done = effect({"steps": steps}, [step["id"] for step in steps])
    missing = [
        step
        for step in order["steps"]
        if step["verb"] not in _CHANGES_NOTHING and step not in steps
    ]
    if not done or not missing:
        return done
    names = "; ".join(step["sentence"] for step in missing)
    commands = "; ".join(f"`{step['by_hand']}`" for step in missing)
    return (
        f"Not done: {names}. Started again, I go on from here. {done} By hand instead: {commands}."
    )


def shifts(order: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the order's steps that move traffic, in order."""
    return [step for step in order["steps"] if step["verb"] == "shift"]


def last_share(order: Mapping[str, Any]) -> int:
    """Return how much of traffic, in percent, the Region gets that it goes to, all being done.

    ``share`` in an order says so where it has no steps; 100 where neither does.
    """
    moves = shifts(order)
    return int(moves[-1]["detail"]["percent"] if moves else order.get("share", _FULL))


def assess(
    before: Look, seen: Seen, planned: Mapping[str, Any], rules: Mapping[str, float]
) -> Look:
    """Judge one look while traffic moves.

    ``carry``: ``{"shift": how many shift steps are made before the one that is watched, "looks":
    looks since it was made, "recovered_at": when the calm began or null, "effect": kept}``.
    Verdicts: ``wait``; ``go``: make the next shift step; ``relieved``: all has moved and works;
    ``worse``: the Region that traffic goes to fails; ``ineffective``: it has not moved, or does
    not work, in time.
    """
    number = before.number + 1
    carry = {"shift": 0, "looks": 0, "recovered_at": None, "effect": "", **before.carry}
    carry["looks"] += 1
    steps = shifts(planned["order"])
    step = steps[min(carry["shift"], len(steps) - 1)] if steps else None
    share = step["detail"]["percent"] if step else last_share(planned["order"])
    is_last = carry["shift"] >= len(steps) - 1
    done = share / _FULL if step else 0.0
    waits = math.ceil(step["detail"]["wait_seconds"] / seen.period_seconds) if step else 0
    words, trouble = _words(seen), _trouble(seen, share, rules, is_last=is_last)
    carry["recovered_at"] = None if trouble else carry["recovered_at"] or seen.now
    calm = 0 if trouble else before.calm + 1
    bad = before.bad + 1 if _failing(seen, rules) else 0
    look = Look(number, "wait", f"{trouble or words}", None, calm, bad, done * 0.9, carry=carry)
    worse = _worse(seen, planned, rules)
    if worse and carry["looks"] > rules["grace_periods"] and bad >= rules["patience_periods"]:
        return ended(look, "worse", worse)
    if not trouble and step is not None and carry["shift"] < len(steps) - 1:
        if calm < max(waits, rules["calm_periods"] if share else 1):
            return look
        carry |= {"shift": carry["shift"] + 1, "looks": 0}
        return Look(number, "go", f"{words} I go on.", done=done * 0.9, carry=carry)
    if not trouble and calm >= rules["calm_periods"]:
        told = measured(planned, carry["recovered_at"]).sentence
        where = planned["order"]["to"]
        words = f"{planned['order']['record']} works in {where}. {told}".strip()
        return ended(look, "relieved", words)
    if carry["looks"] > rules["watch_periods"] + waits + _ttl_periods(planned, seen):
        return ended(look, "ineffective", f"After {number} looks: {trouble or words}")
    return look


def assess_calm(
    before: Look, seen: Seen, planned: Mapping[str, Any], rules: Mapping[str, float]
) -> Look:
    """Judge whether it stays so: ``wait``, ``relieved`` or ``recurred``. ``carry`` is handed on."""
    number = before.number + 1
    trouble = _trouble(seen, last_share(planned["order"]), rules, is_last=True)
    calm, bad = (0, before.bad + 1) if trouble else (before.calm + 1, 0)
    look = Look(number, "wait", trouble or _words(seen), None, calm, bad, 1.0, carry=before.carry)
    recovered = before.carry.get("recovered_at")
    if calm >= rules["calm_periods"]:
        told = measured(planned, seen.now if recovered is None else recovered).sentence
        return ended(
            look,
            "relieved",
            f"{planned['order']['record']} works in {planned['order']['to']} and stays so. "
            f"{told}".rstrip(),
        )
    if relapsed(look, rules):
        return ended(look, "recurred", f"It does not stay so: {trouble or _words(seen)}")
    return look


def _ttl_periods(planned: Mapping[str, Any], seen: Seen) -> int:
    """Return for how many looks resolvers may still give the old answer."""
    periods: float = planned["ttl_seconds"] / seen.period_seconds
    return math.ceil(periods)


def _trouble(seen: Seen, share: int, rules: Mapping[str, float], *, is_last: bool) -> str:
    """Say what is not yet as it should be with ``share`` percent moved; ``""`` if nothing.

    What was not read is trouble as well: a run must not call well what it has not seen.
    ``is_last``: no more is going to move.
    """
    if seen.insync is False:
        return "Route 53 has not spread the change to all its name servers yet (PENDING)."
    silent = sorted(server for server, what in seen.answers.items() if what == NO_ANSWER)
    if not seen.answers or silent:
        return f"No answer from {', '.join(silent) or 'any name server'}."
    odd = sorted(server for server, what in seen.answers.items() if what == OTHER)
    if odd:
        return f"{odd[0]} answers with an address of neither Region."
    # In between, weights decide each answer: any of both is right.
    stale = sorted(server for server, what in seen.answers.items() if what != seen.goes_to)
    none_new = is_last and share >= _HALF and len(stale) == len(seen.answers)
    if none_new or (share == _FULL and stale):
        return f"{len(stale)} of {len(seen.answers)} name servers still give the old answer."
    if not seen.probes:
        return "Nothing has probed the public name."
    if _failing(seen, rules):
        return f"The public name does not work: {_words(seen)}"
    moved = seen.traffic_share
    least = rules["moved_share"] * share / _FULL
    if is_last and moved is not None and moved < least:
        return f"Only {percent(moved)} of traffic has moved."
    return ""


def _failing(seen: Seen, rules: Mapping[str, float]) -> bool:
    failed = 1 - sum(seen.probes.values()) / len(seen.probes) if seen.probes else 0.0
    errors = seen.error_share is not None and seen.error_share >= rules["error_share"]
    return failed >= rules["probes_share"] or errors


def _worse(seen: Seen, planned: Mapping[str, Any], rules: Mapping[str, float]) -> str:
    """Say that the Region that traffic goes to fails under it; ``""`` if it does not.

    Probes alone do not tell: until resolvers forget, they may still reach the other Region.
    """
    now, before = seen.error_share, planned["error_share"]
    if now is None or now < rules["error_share"] or now <= (before or 0.0):
        return ""
    there = planned["order"]["to"]
    return f"{percent(now)} of requests fail in {there} now, {percent(before)} before."


def _words(seen: Seen) -> str:
    there = sum(what == seen.goes_to for what in seen.answers.values())
    works = sum(seen.probes.values())
    return (
        f"{there} of {len(seen.answers)} name servers give the new answer, {works} of "
        f"{len(seen.probes)} probes of the public name succeed, {percent(seen.traffic_share)} of "
        f"traffic has moved, {percent(seen.error_share)} of it fails."
    )
