"""Why Lambda throttles a function: what is known, and the one cause that supports: pure.

Nothing here has a client or a clock. Concurrency is executions at one moment, durations are
milliseconds; a series holds one value a period, oldest first, and is empty where CloudWatch has no
datapoints. Facts about Lambda, unless another page is named, are from the Developer Guide,
"Understanding Lambda function scaling" (lambda-concurrency).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import zip_longest
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from oncall.plans import NO_CAUSE, diagnosed
from oncall.words import ms, per_second, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncall.plans import Cause, Diagnosis

REQUESTS_OF_ONE = 10
"""Requests a second that each unit of a concurrency limit allows, however short they are."""
_RISES = 1.2
"""From this many times its first value on, a series counts as rising."""
_LISTED = 3


@dataclass(frozen=True, slots=True)
class Provisioned:
    """The provisioned concurrency of one alias or version."""

    qualifier: str
    arn: str
    requested: int
    available: int
    status: str
    """``IN_PROGRESS READY FAILED``"""
    reason: str = ""
    """Why it has failed."""
    spilled: float = 0.0
    """Invocations in the window that found no provisioned environment free."""
    utilization: float | None = None
    """The largest share that was in use, 0 to 1."""
    shifting: bool = False
    """Whether the alias shifts weights: a deployment is under way."""


@dataclass(frozen=True, slots=True)
class User:
    """Another function of the account that uses much of its concurrency."""

    name: str
    arn: str
    concurrency: float
    """The most at one moment, in the window."""
    reserved: int | None
    opted_in: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What ``inspect_function`` has read of a function and of the account's concurrency."""

    function: str
    function_arn: str
    period_seconds: int
    reserved: int | None
    account_limit: int
    unreserved: int
    """What functions without a reservation share."""
    account_floor: int
    mapping_caps: int = 0
    """Sum of MaximumConcurrency of its SQS mappings."""
    only_queues: bool = False
    """Whether its configuration names no caller but capped SQS mappings."""
    invokers: Sequence[str] = ()
    shifting: Sequence[str] = ()
    """Aliases that shift weights."""
    updating: bool = False
    provisioned: Sequence[Provisioned] = ()
    users: Sequence[User] = ()
    usual_duration: float | None = None
    usual_attempts: float | None = None
    """Calls in the median period before the window, refused ones too."""
    usual_concurrency: float | None = None
    throttled_recently: float = 0.0
    """Throttles in the latest two periods; none where there are no datapoints."""
    invoked_recently: float = 0.0
    neighbours: Sequence[str] = ()
    """Other functions that were throttled in the latest two periods."""
    invocations: Sequence[float] = field(default_factory=tuple)
    errors: Sequence[float] = field(default_factory=tuple)
    throttles: Sequence[float] = field(default_factory=tuple)
    concurrency: Sequence[float] = field(default_factory=tuple)
    duration: Sequence[float] = field(default_factory=tuple)
    """Median of each period."""
    mean_duration: Sequence[float] = field(default_factory=tuple)
    slowest: Sequence[float] = field(default_factory=tuple)
    """99th percentile of each period."""
    recursions: Sequence[float] = field(default_factory=tuple)
    """Invocations that Lambda has dropped because the function had called itself 16 times."""
    account_concurrency: Sequence[float] = field(default_factory=tuple)
    """Concurrency in use by all functions."""
    account_unreserved: Sequence[float] = field(default_factory=tuple)
    """Concurrency in use by all functions without a reservation."""

    @property
    def peak(self) -> float | None:
        """The most executions at one moment; ``None`` without datapoints."""
        return max(self.concurrency, default=None)

    @property
    def attempts(self) -> tuple[float, ...]:
        """Calls of each period, refused ones too; callers that try again count each time."""
        return attempts(self.invocations, self.throttles)

    @property
    def attempts_per_second(self) -> float | None:
        """Calls a second in the busiest period; ``None`` without datapoints."""
        return max(self.attempts) / self.period_seconds if self.attempts else None

    @property
    def needed(self) -> int | None:
        """Concurrency that serves every call of the busiest period; ``None`` if unknown.

        Concurrency is calls a second times their mean duration. Callers that try again make it an
        upper bound. Pollers of queues never run more than their mappings allow.
        """
        if self.polled:
            return self.mapping_caps
        if self.attempts_per_second is None or not self.mean_duration:
            return None
        by_time = self.attempts_per_second * fmean(self.mean_duration) / 1000
        return max(math.ceil(max(by_time, self.peak or 0)), self.mapping_caps)

    @property
    def polled(self) -> bool:
        """Whether queues alone explain the throttles: their pollers ignore the reservation."""
        return self.only_queues and self.mapping_caps > (self.reserved or 0)

    @property
    def failing_share(self) -> float | None:
        """Share of invocations that fail; ``None`` without datapoints."""
        served = sum(self.invocations)
        return sum(self.errors) / served if served else None

    @property
    def typical_duration(self) -> float | None:
        """Milliseconds that an invocation takes; ``None`` without datapoints."""
        return median(self.duration) if self.duration else None

    @property
    def pool_used(self) -> float | None:
        """Concurrency of all functions without a reservation, at most; ``None`` if unknown."""
        return max(self.account_unreserved, default=None)

    @property
    def provisioned_total(self) -> int:
        """Provisioned concurrency of all its versions and aliases."""
        return sum(one.requested for one in self.provisioned)

    @property
    def hog(self) -> User | None:
        """The function that uses the most of the pool, where that is more than this one does."""
        shares = [user for user in self.users if user.reserved is None]
        most = max(shares, key=lambda user: user.concurrency, default=None)
        return most if most and most.concurrency > (self.peak or 0) else None

    @property
    def most_spilled(self) -> Provisioned | None:
        """The alias or version most of whose calls found no provisioned environment free."""
        most = max(self.provisioned, key=lambda one: one.spilled, default=None)
        return most if most and most.spilled > 0 else None


def attempts(invocations: Sequence[float], throttles: Sequence[float]) -> tuple[float, ...]:
    """Add up served and refused calls of each period; both series end at the same moment."""
    pairs = zip_longest(reversed(invocations), reversed(throttles), fillvalue=0.0)
    return tuple(served + refused for served, refused in pairs)[::-1]


def facts_from(data: Mapping[str, Any]) -> Facts:
    """Read facts back from a state machine's JSON."""
    values = dict(data)
    values["provisioned"] = tuple(Provisioned(**one) for one in values["provisioned"])
    values["users"] = tuple(User(**one) for one in values["users"])
    return Facts(**values)


def seen(facts: Facts) -> dict[str, Any]:
    """Return the numbers that later looks compare with."""
    return {
        "throttles": sum(facts.throttles),
        "failing_share": facts.failing_share,
        "duration": facts.typical_duration,
        "neighbours": sorted(facts.neighbours),
    }


def evidence(facts: Facts) -> tuple[str, ...]:
    """Return the numbers that a human would ask for; what is missing is said to be."""
    reserved = "none" if facts.reserved is None else str(facts.reserved)
    lines = [
        (
            f"{_rate(facts, facts.throttles)} refused, {_rate(facts, facts.invocations)} served, "
            f"{_most(facts.concurrency)} at once at most"
        ),
        (
            f"reserved {reserved}, failing {percent(facts.failing_share)}, "
            f"{ms(facts.typical_duration)} a call (usually {ms(facts.usual_duration)}), "
            f"99% within {ms(max(facts.slowest, default=None))}"
        ),
        (
            f"account: {_most(facts.account_concurrency)} of {facts.account_limit} in use, "
            f"{_most(facts.account_unreserved)} of {facts.unreserved} unreserved, floor "
            f"{facts.account_floor}"
        ),
        f"invoked by {', '.join(facts.invokers) or 'nothing that its configuration names'}",
    ]
    if facts.users:
        most = ", ".join(f"{one.name} {one.concurrency:.0f}" for one in facts.users[:_LISTED])
        lines.append(f"most concurrency besides: {most}")
    lines += [
        f"{one.qualifier}: {one.available} of {one.requested} provisioned ({one.status}), "
        f"{one.spilled:.0f} calls found none"
        for one in facts.provisioned
    ]
    if facts.shifting or facts.updating:
        what = [f"{alias} shifts weights" for alias in facts.shifting]
        lines.append(f"a deployment is under way: {', '.join(what) or 'its code is updated'}")
    if facts.neighbours:
        lines.append(f"throttled as well: {', '.join(facts.neighbours[:_LISTED])}")
    return tuple(lines)


def diagnose(facts: Facts, rules: Mapping[str, float]) -> Diagnosis:
    """Name the one cause that the evidence supports; ``undecided`` is an answer too."""
    causes = (
        _switch_cause(facts),
        _health_cause(facts, rules),
        _provisioned_cause(facts),
        _limit_cause(facts, rules),
    )
    unknown = f"The metrics do not tell why {facts.function} is throttled."
    return diagnosed(evidence(facts), causes, ("undecided", unknown))


def _switch_cause(facts: Facts) -> Cause:
    """Find a stop switch, a loop, or that it is over."""
    name = facts.function
    if facts.reserved == 0:
        return (
            "stop_switch",
            f"{name}'s reserved concurrency is 0: somebody has stopped it on purpose.",
        )
    if sum(facts.recursions) > 0:
        return (
            "recursion",
            (
                f"{name} calls itself in a loop: Lambda has dropped "
                f"{sum(facts.recursions):.0f} invocations for it."
            ),
        )
    if facts.throttles and not facts.throttled_recently:
        return "healed", f"{name} is no longer throttled."
    return NO_CAUSE


def _health_cause(facts: Facts, rules: Mapping[str, float]) -> Cause:
    """Find what is wrong with the work itself; more concurrency would make it worse."""
    name, failing = facts.function, facts.failing_share
    if failing is not None and failing >= rules["failing_share"]:
        if _storms(facts, rules):
            return (
                "retry_storm",
                (
                    f"{failing:.0%} of {name}'s calls fail and {_times_usual(facts)} times as "
                    f"many come as usual: they are tried again and again."
                ),
            )
        return (
            "failing",
            f"{failing:.0%} of {name}'s calls fail; more concurrency would fail faster.",
        )
    if is_slow(facts, facts.usual_duration, rules):
        return (
            "slow_dependency",
            (
                f"{name} takes {ms(facts.typical_duration)} a call, usually "
                f"{ms(facts.usual_duration)}: what lies behind it is slow, and more concurrency "
                f"would press it harder."
            ),
        )
    return NO_CAUSE


def _provisioned_cause(facts: Facts) -> Cause:
    """Find provisioned concurrency that is too little, or not where the calls go."""
    spilled = facts.most_spilled
    if spilled:
        return (
            "provisioned_spilled",
            (
                f"{spilled.spilled:.0f} calls of {facts.function}:{spilled.qualifier} found none "
                f"of its {spilled.requested} provisioned environments free."
            ),
        )
    if facts.reserved and facts.provisioned_total >= facts.reserved:
        where = ", ".join(one.qualifier for one in facts.provisioned)
        return (
            "provisioned_misplaced",
            (
                f"The provisioned concurrency of {where} takes up all {facts.reserved} that "
                f"{facts.function} has reserved: calls of any other version are refused."
            ),
        )
    return NO_CAUSE


def _limit_cause(facts: Facts, rules: Mapping[str, float]) -> Cause:
    """Find which limit healthy calls have met."""
    peak, name, near = facts.peak, facts.function, rules["near_share"]
    if peak is None or facts.attempts_per_second is None or not facts.throttles:
        return NO_CAUSE
    limit = facts.unreserved if facts.reserved is None else facts.reserved
    if facts.reserved is not None and peak >= near * facts.reserved:
        return (
            "reserved_cap",
            f"{name} runs at its reserved concurrency of {facts.reserved} and is healthy.",
        )
    if facts.reserved is None and (facts.pool_used or 0) >= near * facts.unreserved:
        return "pool_exhausted", _exhausted(facts, peak)
    if facts.attempts_per_second >= near * REQUESTS_OF_ONE * limit:
        return (
            "requests_per_second",
            (
                f"{name} gets {per_second(facts.attempts_per_second)}; a concurrency of {limit} "
                f"allows {REQUESTS_OF_ONE * limit}/s, however short the calls are, and only "
                f"{peak:.0f} run at once."
            ),
        )
    if facts.concurrency[-1] > _RISES * facts.concurrency[0]:
        return (
            "scaling_rate",
            (
                f"{name} is scaling up, {facts.concurrency[0]:.0f} to "
                f"{facts.concurrency[-1]:.0f} so far; Lambda adds at most 1,000 environments in "
                f"10 s, so this passes by itself."
            ),
        )
    return NO_CAUSE


def _exhausted(facts: Facts, peak: float) -> str:
    hog = facts.hog
    most = f"{hog.name} runs {hog.concurrency:.0f} of it, " if hog else ""
    none = "" if hog else " of it, more than any other"
    return (
        f"The account's {facts.unreserved} unreserved concurrency is used up: {most}"
        f"{facts.function} {peak:.0f}{none}."
    )


def _storms(facts: Facts, rules: Mapping[str, float]) -> bool:
    if not facts.attempts or not facts.usual_attempts:
        return False
    return max(facts.attempts) >= rules["storm_factor"] * facts.usual_attempts


def _times_usual(facts: Facts) -> str:
    return f"{max(facts.attempts) / (facts.usual_attempts or 1):.0f}"


def is_slow(facts: Facts, before: float | None, rules: Mapping[str, float]) -> bool:
    """Return whether a call takes much longer than ``before``, in milliseconds."""
    takes = facts.typical_duration
    return takes is not None and bool(before) and takes >= rules["slow_factor"] * (before or 0)


def _most(series: Sequence[float]) -> str:
    return f"{max(series):.0f}" if series else "unknown"


def _rate(facts: Facts, series: Sequence[float]) -> str:
    if not series:
        return per_second(None)
    return per_second(sum(series) / (len(series) * facts.period_seconds))
