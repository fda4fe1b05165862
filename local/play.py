"""A play: real trouble on the playground, followed until the incident's last word is told.

It makes the story's trouble for the pilot and then only watches: what happens is what the deployed
templates do. It ends when the incident is closed and every channel has been told so.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from local.stories import set_kill_switch
from local.watch import Watch
from oncall.marks import proof
from oncall.times import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from local.pagerduty import FakePagerDuty
    from local.playground import Playground
    from local.slack import FakeSlack
    from local.stories import Story
    from local.watch import Glance, SettingKey
    from oncall.incident import Incident

_CALM_SECONDS = 6
"""Steady load before the trouble: metrics need a "before"."""


@dataclass(frozen=True, slots=True)
class Played:
    """How a story went."""

    story: Story
    incident: Incident | None
    slack: FakeSlack
    pagerduty: FakePagerDuty
    trouble_at: datetime
    now: Mapping[SettingKey, Any] = field(default_factory=dict)
    """The live value of each setting that the incident has changed."""
    left: Sequence[str] = ()
    """Sentences on what is not as it was before, read from AWS and not from the record."""
    overdue: str = ""
    """What had not happened when patience ran out."""

    @property
    def outcome(self) -> str:
        """The incident's outcome; ``timed_out`` when it had none in time."""
        return "timed_out" if self.overdue or not self.incident else self.incident.outcome

    def after(self, moment: str) -> float | None:
        """Return the seconds from the trouble to an ISO time, ``None`` without one."""
        return (parse(moment) - self.trouble_at).total_seconds() if moment else None

    @property
    def alarm_after(self) -> float | None:
        """Seconds from the trouble to the alarm."""
        alarm = self.incident.trigger.get("alarm", {}) if self.incident else {}
        return self.after(str(alarm.get("changed_at", "")))

    @property
    def first_change_after(self) -> float | None:
        """Seconds from the trouble to the first change that was made."""
        return self.after(self._at("changed"))

    @property
    def relieved_after(self) -> float | None:
        """Seconds from the trouble to the proof of relief."""
        if self.incident is None:
            return None
        # A play that was not told in time has not been resolved for whoever watches it.
        look = proof(replace(self.incident, outcome=self.outcome))
        return self.after(look.at) if look else None

    @property
    def effect(self) -> str:
        """What was done that no setting shows, in a sentence; ``""`` for nothing."""
        return str(self.incident.progress.get("effect", "")) if self.incident else ""

    @property
    def ended_after(self) -> float | None:
        """Seconds from the trouble to the incident's end."""
        return self.after(self.incident.closed_at) if self.incident else None

    def _at(self, kind: str) -> str:
        entries = self.incident.entries if self.incident else ()
        return next((entry.at for entry in entries if entry.kind == kind), "")


def play(
    story: Story,
    ground: Playground,
    show: Callable[[Glance], None],
) -> Played:
    """Play a story on an open playground.

    ``show`` is called at every look. A run that still goes when the play is left early (Ctrl-C) is
    aborted, which puts back what it has changed.
    """
    story.prepare(ground)
    watch = Watch(ground, story)
    watch.clear(show)
    settings = watch.settings()
    stop = threading.Event()
    load = story.sender(ground, stop)
    loads: list[Future[object]] = []

    def show_and_check(glance: Glance) -> None:
        show(glance)
        for sent in loads:
            if sent.done():
                sent.result()  # a load that fails is an error and not a story

    # Leaving the block waits for the last orders.
    with ThreadPoolExecutor(max_workers=2) as pool:
        try:
            lasting = _CALM_SECONDS + story.patience
            loads.append(pool.submit(story.steady.send, load, lasting))
            watch.calm(show_and_check, until=time.monotonic() + _CALM_SECONDS)
            trouble_at = datetime.now(UTC)
            show_and_check(replace(watch.look(), now=story.trouble.words))
            loads.append(pool.submit(story.trouble.send, load, story.patience))
            until = time.monotonic() + story.patience
            overdue = watch.until_told(show_and_check, until)
        except BaseException:
            watch.abort(show)
            raise
        finally:
            stop.set()
            set_kill_switch(ground, "run")
    for sent in loads:
        sent.result()
    incident = watch.incident()
    if overdue:
        watch.abort(show)
    return Played(
        story=story,
        incident=incident,
        slack=ground.slack,
        pagerduty=ground.pagerduty,
        trouble_at=trouble_at,
        now=watch.live(incident),
        left=(*watch.left(settings, incident), *story.missing(ground, load.taken)),
        overdue=overdue,
    )
