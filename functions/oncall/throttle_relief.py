"""What to do about a function's throttles, and whether it has helped: pure.

Words and units are those of ``throttles``, and so are the sources of facts about Lambda.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from oncall.changes import Planned
from oncall.levers import PROVISIONED_CONCURRENCY, RESERVED_CONCURRENCY
from oncall.plans import Look, Plan, ended, relapsed
from oncall.throttles import REQUESTS_OF_ONE, is_slow
from oncall.words import ms, per_second, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncall.plans import Diagnosis
    from oncall.throttles import Facts

_QUOTA_STEP = 100
_LATEST = 2
"""Periods that say how much runs now; CloudWatch shows a minute late what Lambda has counted."""
_WEIGHED = "Provisioned concurrency cannot be changed while an alias shifts weights"
_OUTGROWN = (
    "That does not go down. Putting settings back would refuse calls again, so they stay as I set "
    "them: whether for good is yours to decide."
)


def plan(diagnosis: Diagnosis, facts: Facts, limits: Mapping[str, float]) -> Plan:
    """Make a plan for a diagnosis; whatever has no safe action becomes a human's."""
    match diagnosis.cause:
        case "healed" | "scaling_rate":
            return Plan("watch", "relief", (), "Change nothing and watch that it stays so.")
        case "recursion":
            return _plan_stop(diagnosis, facts)
        case "retry_storm":
            return _plan_clamp(diagnosis, facts)
        case "provisioned_spilled":
            return _plan_provision(diagnosis, facts, limits)
        case "provisioned_misplaced":
            beside = math.ceil((facts.needed or 0) * limits["headroom"])
            return _plan_raise(diagnosis, facts, limits, facts.provisioned_total + beside)
        case "reserved_cap":
            needed = facts.needed
            wanted = None if needed is None else _with_headroom(facts, needed, limits)
            return _plan_raise(diagnosis, facts, limits, wanted)
        case "requests_per_second":
            wanted = math.ceil((facts.attempts_per_second or 0) / REQUESTS_OF_ONE)
            if facts.reserved is None:
                more = wanted - facts.unreserved
                return _human(diagnosis, quota_offer(facts, facts.account_limit + more))
            return _plan_raise(diagnosis, facts, limits, math.ceil(wanted * limits["headroom"]))
        case "pool_exhausted":
            return _plan_cap_hog(diagnosis, facts, limits)
        case _:
            return _human(diagnosis, "That is for a human to judge.")


def _human(diagnosis: Diagnosis, what: str, bounds: tuple[str, ...] = ()) -> Plan:
    return Plan("human", "relief", (), f"{diagnosis.sentence} {what}", bounds)


def quota_offer(facts: Facts, wanted: float) -> str:
    """Return what a human may ask AWS for, filled in (Service Quotas, L-B99A9384)."""
    rounded = math.ceil(max(wanted, facts.account_limit + 1) / _QUOTA_STEP) * _QUOTA_STEP
    return (
        f"A higher limit (now {facts.account_limit}) is AWS's to grant: `aws service-quotas "
        f"request-service-quota-increase --service-code lambda --quota-code L-B99A9384 "
        f"--desired-value {rounded}`."
    )


def _with_headroom(facts: Facts, needed: int, limits: Mapping[str, float]) -> int:
    """Add room for moments above the mean; pollers of queues never need any."""
    return needed if facts.polled else math.ceil(needed * limits["headroom"])


def _plan_raise(
    diagnosis: Diagnosis, facts: Facts, limits: Mapping[str, float], wanted: int | None
) -> Plan:
    """Raise the reservation as far as serves every call, within every bound."""
    if wanted is None or not facts.reserved:
        return _human(diagnosis, "How much it needs cannot be told from its metrics.")
    to, bounds = _held(wanted, _ceilings(facts, facts.reserved, limits))
    if to <= facts.reserved:
        more = quota_offer(facts, facts.account_limit + wanted - facts.reserved)
        held = f", but {bounds[0]}. {more}" if bounds else ", which it has."
        return _human(diagnosis, f"It would need {wanted}{held}", bounds)
    return Plan(
        "raise",
        "relief",
        (_reservation(facts, to, "it is at its limit and healthy"),),
        f"Raise {facts.function}'s reserved concurrency from {facts.reserved} to {to}: "
        f"{_why_so_many(facts)}.{_held_words(bounds)}",
        bounds,
    )


def _why_so_many(facts: Facts) -> str:
    if facts.polled:
        return f"its queues' mappings run up to {facts.mapping_caps} at once"
    calls = per_second(facts.attempts_per_second)
    mean = ms(fmean(facts.mean_duration) if facts.mean_duration else None)
    return f"{calls} come at {mean} each, refused ones too"


def _ceilings(facts: Facts, now: int, limits: Mapping[str, float]) -> list[tuple[int, str]]:
    """Return every bound on a raised reservation with its reason."""
    free = max(0, facts.unreserved - facts.account_floor)
    return [
        (int(now * limits["max_factor"]), f"at most {limits['max_factor']} times {now}"),
        (int(limits["max_concurrency"]), f"at most {limits['max_concurrency']}"),
        (
            now + free,
            f"the account has {facts.unreserved} unreserved and keeps {facts.account_floor}",
        ),
    ]


def _held(wanted: int, ceilings: Sequence[tuple[int, str]]) -> tuple[int, tuple[str, ...]]:
    to = min([wanted, *(ceiling for ceiling, _ in ceilings)])
    return to, tuple(words for ceiling, words in ceilings if ceiling == to < wanted)


def _held_words(bounds: Sequence[str]) -> str:
    return f" Held to that by: {'; '.join(bounds)}." if bounds else ""


def _reservation(facts: Facts, to: int, why: str) -> Planned:
    return Planned(
        lever=RESERVED_CONCURRENCY,
        resource=facts.function_arn,
        name=f"{facts.function}'s reserved concurrency",
        before=facts.reserved,
        after=to,
        why=why,
    )


def _plan_provision(diagnosis: Diagnosis, facts: Facts, limits: Mapping[str, float]) -> Plan:
    """Raise the alias's provisioned concurrency, and first the reservation that it has to fit."""
    spilled = facts.most_spilled
    if spilled is None or facts.needed is None:
        return _human(diagnosis, "How much it needs cannot be told from its metrics.")
    if spilled.shifting:
        return _human(diagnosis, f"{_WEIGHED}, as {spilled.qualifier} does now.")
    wanted = _with_headroom(facts, facts.needed, limits)
    others = facts.provisioned_total - spilled.requested
    now = spilled.requested
    ceilings = [
        (int(now * limits["max_factor"]), f"at most {limits['max_factor']} times {now}"),
        (int(limits["max_concurrency"]), f"at most {limits['max_concurrency']}"),
    ]
    if facts.reserved is None:
        free = max(0, facts.unreserved - facts.account_floor)
        words = f"the account has {facts.unreserved} unreserved and keeps {facts.account_floor}"
        ceilings.append((now + free, words))
    else:
        ceilings += [
            (most - others, words) for most, words in _ceilings(facts, facts.reserved, limits)
        ]
    to, bounds = _held(wanted, ceilings)
    if to <= now:
        held = f", but {bounds[0]}" if bounds else ", which it has"
        return _human(diagnosis, f"It would need {wanted}{held}.", bounds)
    changes = [
        Planned(
            lever=PROVISIONED_CONCURRENCY,
            resource=spilled.arn,
            name=f"{facts.function}:{spilled.qualifier}'s provisioned concurrency",
            before=now,
            after=to,
            why="its calls find no provisioned environment free",
        )
    ]
    if facts.reserved is not None and facts.reserved < to + others:
        changes.insert(0, _reservation(facts, to + others, "provisioned concurrency has to fit"))
    return Plan(
        "provision",
        "relief",
        tuple(changes),
        f"Raise {facts.function}:{spilled.qualifier}'s provisioned concurrency from {now} to "
        f"{to}: {_why_so_many(facts)}.{_held_words(bounds)}",
        bounds,
    )


def _plan_cap_hog(diagnosis: Diagnosis, facts: Facts, limits: Mapping[str, float]) -> Plan:
    """Cap the function that uses most of the pool, so that the target gets what it needs."""
    needed, hog, used = facts.needed, facts.hog, facts.pool_used
    if needed is None or used is None or facts.peak is None:
        return _human(diagnosis, "How much it needs cannot be told from its metrics.")
    offer = quota_offer(facts, facts.account_limit + max(0, needed - facts.peak))
    if hog is None:
        return _human(diagnosis, offer)
    if not hog.opted_in:
        return _human(
            diagnosis, f"{hog.name} is not opted in to automation, so I leave it. {offer}"
        )
    others = max(0.0, used - hog.concurrency - facts.peak)
    keeps = math.ceil(hog.concurrency * limits["hog_keeps"])
    most = min(int(hog.concurrency) - 1, facts.unreserved - facts.account_floor)
    to = min(most, max(keeps, int(facts.unreserved - others - needed)))
    if to < keeps:
        return _human(
            diagnosis,
            f"{hog.name} may be cut to {keeps} at the least, and the account has "
            f"{facts.unreserved} unreserved and keeps {facts.account_floor}. {offer}",
        )
    change = Planned(
        lever=RESERVED_CONCURRENCY,
        resource=hog.arn,
        name=f"{hog.name}'s reserved concurrency",
        before=None,
        after=to,
        why=f"{facts.function} needs {needed} of the account's pool",
    )
    return Plan(
        "cap_hog",
        "relief",
        (change,),
        f"Cap {hog.name}, which runs {hog.concurrency:.0f}, at {to} until the account's pool is "
        f"quiet: its own calls beyond that are refused, and {facts.function} gets the {needed} "
        f"that it needs. {offer}",
    )


def _plan_clamp(diagnosis: Diagnosis, facts: Facts) -> Plan:
    """Hold a retry storm to the usual concurrency, so that what fails can recover."""
    peak = int(facts.peak or 0)
    runs = peak if facts.reserved is None else min(peak, facts.reserved)
    to = max(1, math.ceil(facts.usual_concurrency or 0))
    room = facts.unreserved - facts.account_floor
    if to < facts.provisioned_total:
        return _human(diagnosis, _keeps_provisioned(facts, to))
    if to >= runs:
        return _human(diagnosis, f"It runs at {runs} already, which is no more than usual.")
    if facts.reserved is None and to > room:
        return _human(
            diagnosis,
            f"A reservation of {to} does not fit: the account has {facts.unreserved} unreserved "
            f"and keeps {facts.account_floor}.",
        )
    return Plan(
        "clamp",
        "protect",
        (_reservation(facts, to, "less load lets what fails recover"),),
        f"Hold {facts.function}, which runs {runs}, to its usual {to} at once until it is "
        f"healthy; more calls are refused meanwhile.",
    )


def _keeps_provisioned(facts: Facts, to: int) -> str:
    """Say why a reservation cannot go so low (Lambda ``PutFunctionConcurrency``)."""
    where = ", ".join(one.qualifier for one in facts.provisioned)
    return (
        f"Lambda lets no reservation go to {to}, below the {facts.provisioned_total} that are "
        f"provisioned for {where}; delete that provisioned concurrency first."
    )


def _plan_stop(diagnosis: Diagnosis, facts: Facts) -> Plan:
    if facts.provisioned_total:
        return _human(diagnosis, _keeps_provisioned(facts, 0))
    return Plan(
        "stop",
        "stop",
        (_reservation(facts, 0, "it calls itself in a loop"),),
        f"Stop {facts.function} (reserved concurrency 0) to break the loop: every call is refused "
        f"until you have mended it and undo this; asynchronous calls are kept for 6 hours at most.",
    )


def assess(
    before: Look, facts: Facts, planned: Mapping[str, Any], rules: Mapping[str, float]
) -> Look:
    """Judge whether the plan helps, from this look and the one before.

    ``planned`` is the plan's document. Its goal says by what: ``relief`` by throttles,
    ``protect`` by the function's health, ``stop`` by silence.
    """
    number = before.number + 1
    if planned["goal"] == "stop":
        return _assess_stop(before, facts, rules, number)
    if planned["goal"] == "protect":
        return _assess_protection(before, facts, rules, number)
    throttled = facts.throttled_recently
    falls = before.measure is None or throttled < before.measure
    holds = "" if throttled else _still_needs(facts, planned)
    calm = 0 if throttled or holds else before.calm + 1
    bad = before.bad + 1 if throttled and not falls else 0
    # Half of the way, which the thread is told once, is that nothing is refused any more.
    words = f"{_words(facts)} {holds}".strip()
    look = Look(number, "wait", words, throttled, calm, bad, 0.0 if throttled else 0.5)
    waits = _allocation(look, facts, planned, rules)
    if waits:
        return waits
    worse = _worse(facts, planned, rules)
    if worse and number > rules["grace_periods"]:
        return ended(look, "worse", worse)
    if calm >= rules["calm_periods"]:
        return ended(look, "relieved", f"{facts.function} is no longer throttled: {_load(facts)}.")
    if number > rules["watch_periods"] and holds:
        return ended(look, "contained", f"{_words(facts)} {holds} {_OUTGROWN}")
    lost = number > rules["grace_periods"] and bad >= rules["patience_periods"]
    if lost or number > rules["watch_periods"]:
        return ended(
            look,
            "ineffective",
            f"{facts.function} is still throttled after {number} looks: {throttled:.0f} times in "
            f"the latest two periods.",
        )
    return look


def _still_needs(facts: Facts, planned: Mapping[str, Any]) -> str:
    """Say why settings cannot go back yet although nothing is refused; ``""`` when they can.

    What was too little would be so again at once: a reservation for the executions of now, the
    pool for a capped function that still meets its cap.
    """
    running = max(facts.concurrency[-_LATEST:], default=0)
    for change in planned["changes"]:
        if change["lever"] != RESERVED_CONCURRENCY:
            continue
        name, before = change["resource"].split(":")[6], change["before"]
        if name != facts.function and name in facts.neighbours:
            return f"{name} still meets its cap of {change['after']}."
        if name == facts.function and before and running > max(1, before - 1):
            return f"It had {before}, too few for {running:.0f} at once."
    return ""


def assess_calm(
    before: Look, facts: Facts, planned: Mapping[str, Any], rules: Mapping[str, float]
) -> Look:
    """Judge whether the function stays unthrottled now that settings are back."""
    number = before.number + 1
    throttled = facts.throttled_recently
    calm, bad = (0, before.bad + 1) if throttled else (before.calm + 1, 0)
    look = Look(number, "wait", _words(facts), throttled, calm, bad, 1.0)
    if calm >= rules["calm_periods"]:
        return ended(
            look,
            "relieved",
            f"{facts.function} is no longer throttled and stays so ({_load(facts)}, "
            f"{planned['throttles']:.0f} calls refused before).",
        )
    if relapsed(look, rules):
        return ended(
            look,
            "recurred",
            f"{facts.function} is throttled again with its settings as they were "
            f"({throttled:.0f} times in the latest two periods): they are too low for good.",
        )
    return look


def _allocation(
    look: Look, facts: Facts, planned: Mapping[str, Any], rules: Mapping[str, float]
) -> Look | None:
    """Wait until provisioned concurrency is there: nothing else can be judged before."""
    changed = {change["resource"] for change in planned["changes"]}
    one = next((one for one in facts.provisioned if one.arn in changed), None)
    if one is None or one.status == "READY":
        return None
    if one.status == "FAILED":
        return ended(
            look,
            "worse",
            f"Lambda cannot provision {one.requested} for {one.qualifier}: {one.reason}",
        )
    words = f"{one.available} of {one.requested} provisioned environments are ready."
    if look.number > rules["ready_periods"]:
        return ended(look, "ineffective", f"After {look.number} looks only {words}")
    return replace(look, sentence=words, calm=0, bad=0, done=0.0)


def _worse(facts: Facts, planned: Mapping[str, Any], rules: Mapping[str, float]) -> str:
    failing = facts.failing_share or 0.0
    if failing >= rules["failing_share"] and failing > (planned["failing_share"] or 0.0):
        return (
            f"{percent(failing)} of {facts.function}'s calls fail now, "
            f"{percent(planned['failing_share'])} before."
        )
    if is_slow(facts, planned["duration"], rules):
        return (
            f"{facts.function} takes {ms(facts.typical_duration)} a call now, "
            f"{ms(planned['duration'])} before."
        )
    if not planned["changes"]:
        return ""
    changed = {change["resource"].split(":")[6] for change in planned["changes"]}
    hurt = [n for n in facts.neighbours if n not in changed and n not in planned["neighbours"]]
    if hurt and (facts.pool_used or 0) >= rules["near_share"] * facts.unreserved:
        return (
            f"{hurt[0]} is throttled now and was not before: the account's {facts.unreserved} "
            f"unreserved concurrency is used up."
        )
    if facts.unreserved < facts.account_floor:
        return (
            f"The account has {facts.unreserved} unreserved concurrency left, fewer than the "
            f"{facts.account_floor} it keeps."
        )
    return ""


def _assess_protection(before: Look, facts: Facts, rules: Mapping[str, float], number: int) -> Look:
    failing = facts.failing_share
    healthy = failing is not None and failing < rules["failing_share"]
    calm = before.calm + 1 if healthy else 0
    look = Look(number, "wait", _words(facts), facts.throttled_recently, calm)
    if calm >= rules["calm_periods"]:
        return ended(look, "protected", f"{facts.function} is healthy again: {_load(facts)}.")
    if number > rules["grace_periods"] + rules["watch_periods"]:
        return ended(look, "ineffective", f"{facts.function} has not recovered: {_load(facts)}.")
    return look


def _assess_stop(before: Look, facts: Facts, rules: Mapping[str, float], number: int) -> Look:
    still = facts.invoked_recently
    calm = 0 if still else before.calm + 1
    look = Look(number, "wait", f"{still:.0f} calls still ran.", still, calm)
    if calm >= rules["calm_periods"]:
        return ended(
            look,
            "contained",
            f"{facts.function}'s loop is broken: nothing has run for {number} looks. It stays "
            f"stopped until you have mended it.",
        )
    if number > rules["grace_periods"] + rules["patience_periods"]:
        return ended(
            look,
            "ineffective",
            f"{facts.function} runs on although it was stopped: {still:.0f} calls.",
        )
    return look


def _words(facts: Facts) -> str:
    refused = f"{facts.throttled_recently:.0f}" if facts.throttled_recently else "No"
    return f"{refused} calls refused in the latest two periods, {_load(facts)}."


def _load(facts: Facts) -> str:
    running = f"{facts.concurrency[-1]:.0f}" if facts.concurrency else "unknown"
    limit = "" if facts.reserved is None else f" of {facts.reserved}"
    return f"{running}{limit} at once, {percent(facts.failing_share)} failing"
