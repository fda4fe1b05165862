"""Play a story in a world: what is given, what happens, and what has to be so then."""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from oncall.incident import Change, Entry, Incident, Run
from oncall.times import iso
from tests.scenarios.checks import Checks
from tests.scenarios.scene import Part, Scene
from tests.scenarios.steps import Steps
from tests.scenarios.story import Story
from tests.scenarios.targets import KINDS
from tests.scenarios.world import World


class Play(Part):
    """The performance of a story."""

    def __init__(self, story: Story, world: World) -> None:
        super().__init__(Scene(story, world))
        self.story = story

    def play(self) -> None:
        """Play the story from given to then; AssertionError says what is otherwise."""
        scene, steps, checks = self.scene, Steps(self.scene), Checks(self.scene)
        self.world.waits = self.story.given["waits"]
        self._given(self.story.given, steps)
        try:
            for step, value in self.story.when:
                steps.do(step, scene.filled(value))
            scene.all_ended()
        finally:
            self._put_back()
        checks.all_told()
        checks.check(scene.filled(self.story.then))
        checks.leaves_nothing()
        for target in scene.targets:
            target.forget()

    def _put_back(self) -> None:
        """Put back what the story has changed of its world, for the next one."""
        world = self.world
        for target in self.scene.targets:
            target.rest()
        world.waits = 0.05
        world.aws.faults.clear()
        world.slack.up()
        world.pagerduty.up()
        world.kill_switch("run")
        world.kill_switch("run", self.story.runbook)
        world.aws.set_account_concurrency(1000)
        world.rules(enabled=True, scheduled=False)
        if "Calendar" in world.settings:
            world.calendar(str(world.settings["Calendar"]), closed=False)
        world.alarm_events(enabled=True)
        for alarm in reversed(self.scene.alarms):
            world.client("cloudwatch").delete_alarms(AlarmNames=[alarm])

    def _given(self, given: Mapping[str, Any], steps: Steps) -> None:
        world, targets = self.world, self.scene.targets
        kind = KINDS[self.story.runbook]
        if given.get("target") == "pilot":
            targets.append(kind.pilot(world))
        else:
            name = self.story.name[:40]
            targets.append(kind.make(world, f"{name}-{uuid.uuid4().hex[:4]}", given))
            for number in range(given.get("targets", 0)):
                targets.append(kind.make(world, f"{name}-{number}", given))
            for target in targets:
                target.seed(self.scene.picture)
        left = self.target.left_by_an_earlier_run(given)
        if left is not None:
            self._earlier_run(left)
        for past in given.get("past_runs", []):
            self._past_run(**past)
        if "account_limit" in given:
            world.aws.set_account_concurrency(given["account_limit"])
        if "kill_switch" in given:
            world.kill_switch(given["kill_switch"])
        if not given.get("status_events", True):
            world.rules(enabled=False, scheduled=False)
        for fault in given.get("faults", []):
            steps.do("fault", fault)
        self.scene.settings_before += [target.settings() for target in targets]
        self.scene.calls_before = len(world.aws.calls)

    def _earlier_run(self, change: Change) -> None:
        """Write the record of a run that has made this change and lost its lock since."""
        world, target = self.world, self.target
        opened = world.store.open(
            Incident(
                id=f"earlier-{uuid.uuid4().hex[:8]}", runbook=self.story.runbook, title="Earlier",
                target=target.arn, target_name=target.name, mode="auto",
                trigger={"kind": "hand", "alarm": {}}, execution="", fence=0,
            ),
            Entry(id="opened", kind="opened", text="An earlier run."),
            timedelta(hours=1),
        )  # fmt: skip
        run = Run(opened.id, opened.runbook, opened.target, opened.mode, opened.fence)
        lease = replace(change, state="intended", expires_at=iso(world.now() + timedelta(hours=1)))
        world.store.lease_change(run, lease, Entry(id="i", kind="intended", text="Change it."))
        made = replace(lease, incident=run.incident, state="applied")
        world.store.update_change(run, made, Entry(id="c", kind="changed", text="Changed."))
        world.store.close(
            run, "failed", "It failed.", Entry(id="x", kind="closed", text="It failed.")
        )
        self.scene.earlier = run.incident

    def _past_run(self, outcome: str, minutes_ago: float) -> None:
        at = iso(self.world.now() - timedelta(minutes=minutes_ago))
        table = self.world.aws.session().resource("dynamodb")
        table.Table(self.world.outputs["IncidentsTable"]).put_item(
            Item={
                "pk": f"TARGET#{self.target.arn}",
                "sk": f"RUN#{at}#past-{minutes_ago}",
                "type": "run",
                "runbook": self.story.runbook,
                "incident": f"past-{minutes_ago}",
                "outcome": outcome,
                "mode": "auto",
                "closed_at": at,
            }
        )
