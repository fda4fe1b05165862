"""Inspect, plan and look of a throttled function, over the real store."""

import json
from dataclasses import asdict
from typing import Any

import pytest

import inspect_function
import plan_throttle_relief
import verify_throttles
from oncall import changes, throttles
from oncall.errors import Contained, Ineffective, NeedsHuman, Recurred, WorldMoved
from oncall.plans import Look
from oncall.step import Call
from oncall.throttles import Facts, Provisioned, User
from tests.unit.world import FUNCTION, OPTED_IN, SWITCHES, World, a_world

RUNBOOK = "lambda-throttles"
REPORTS = FUNCTION.replace("worker", "reports")
BUSY: dict[str, list[float]] = {
    "invocations": [6000.0] * 5,
    "errors": [0.0] * 5,
    "throttles": [600.0] * 5,
    "concurrency": [10.0] * 5,
    "duration": [100.0] * 5,
    "mean_duration": [100.0] * 5,
    "slowest": [300.0] * 5,
    "recursions": [0.0] * 5,
    "account_concurrency": [60.0] * 5,
    "account_unreserved": [50.0] * 5,
}


@pytest.fixture
def world() -> World:
    """A healthy function at its reservation of 10."""
    world = a_world()
    world.cloud.series = {name: list(values) for name, values in BUSY.items()}
    world.cloud.series |= {"throttled": [600.0, 600.0], "invoked": [6000.0] * 2, "events": [5.0]}
    world.cloud.baseline = {
        "duration": [90.0, 80.0, 100.0],
        "invocations": [5000.0, 6000.0, 4000.0],
        "throttles": [0.0],
        "concurrency": [7.0, 8.0, 9.0],
    }
    world.cloud.reserved = 10
    world.cloud.mappings = 0
    world.cloud.parameters[f"{SWITCHES}/{RUNBOOK}"] = "run"
    world.open(runbook=RUNBOOK, target=FUNCTION, target_name="worker")
    return world


def call(world: World, **payload: Any) -> Call:
    return Call(world.run, "A state", {"run": asdict(world.run), "state": "A state", **payload})


def inspect(world: World) -> Facts:
    found = inspect_function.work(call(world), world.aws)
    return throttles.facts_from(json.loads(json.dumps(found))["facts"])


def plan(world: World) -> Any:
    return plan_throttle_relief.work(call(world, facts=asdict(inspect(world))), world.aws)


def act(world: World) -> None:
    planned = plan(world)
    for lever in planned["levers"]:
        changes.make(world.aws, world.run, lever, planned["plan_hash"])


def look(world: World, before: Look, phase: str = "relief") -> Any:
    return verify_throttles.work(call(world, look=asdict(before), phase=phase), world.aws)


def test_everything_that_is_decided_on_is_read(world: World) -> None:
    world.clock.forward(seconds=17)  # within a period
    cloud = world.cloud
    cloud.mappings = 1
    cloud.aliases = {
        "live": {"RoutingConfig": {"AdditionalVersionWeights": {"7": 0.1}}},
        "old": {},
    }
    cloud.provisioned_configs = [
        {
            "FunctionArn": f"{FUNCTION}:live",
            "RequestedProvisionedConcurrentExecutions": 5,
            "AvailableProvisionedConcurrentExecutions": 4,
            "Status": "IN_PROGRESS",
        }
    ]
    cloud.series |= {"spilled": [3.0, 4.0], "used": [0.5, 1.0]}
    cloud.policies = {
        FUNCTION: [{"Principal": {"Service": "events.amazonaws.com"}}, {"Principal": "*"}],
        f"{FUNCTION}:live": [{"Principal": {"AWS": ["arn:aws:iam::123456789012:root"]}}],
    }
    cloud.urls = [f"{FUNCTION}:live"]
    cloud.greatest = {
        "ConcurrentExecutions": {"reports": [700.0, 650.0], "worker": [10.0], "gone": []},
        "Throttles": {"reports": [0.0, 3.0], "worker": [9.0], "quiet": [0.0]},
    }
    cloud.tags[REPORTS] = dict(OPTED_IN)
    facts = inspect(world)
    bare: dict[str, Any] = {**asdict(facts), **dict.fromkeys(BUSY, ())}
    bare |= {"provisioned": facts.provisioned, "users": facts.users}
    assert Facts(**bare) == Facts(
        function="worker",
        function_arn=FUNCTION,
        period_seconds=60,
        reserved=10,
        account_limit=1000,
        unreserved=900,
        account_floor=100,
        mapping_caps=20,
        only_queues=False,
        invokers=[
            "orders (at most 20 at once)",
            "*",
            "arn:aws:iam::123456789012:root",
            "events.amazonaws.com",
            "URL of worker:live",
            "asynchronous calls",
        ],
        shifting=["live"],
        updating=False,
        provisioned=(
            Provisioned(
                "live", f"{FUNCTION}:live", 5, 4, "IN_PROGRESS", "", 7.0, 1.0, shifting=True
            ),
        ),
        users=(User("reports", REPORTS, 700.0, None, opted_in=True),),
        usual_duration=90.0,
        usual_attempts=5000.0,
        usual_concurrency=8.0,
        throttled_recently=1200.0,
        invoked_recently=12_000.0,
        neighbours=["reports"],
    )
    for name, values in BUSY.items():
        assert getattr(facts, name) == values, name


def test_only_capped_queues_are_known_to_be_all_that_polls(world: World) -> None:
    world.cloud.mappings = 1
    world.cloud.series["events"] = [0.0]
    assert inspect(world).only_queues
    world.cloud.cap = None
    facts = inspect(world)
    assert (facts.only_queues, facts.mapping_caps, facts.invokers) == (False, 0, ["orders"])
    world.cloud.state = "Disabled"
    assert inspect(world).invokers == []


def test_a_user_that_has_been_deleted_is_left_out(world: World) -> None:
    world.cloud.greatest = {"ConcurrentExecutions": {"reports": [700.0], "other": [3.0]}}
    world.cloud.gone.add(REPORTS)
    assert [user.name for user in inspect(world).users] == ["other"]


def test_what_is_missing_is_read_as_missing(world: World) -> None:
    world.cloud.series.clear()
    world.cloud.baseline.clear()
    facts = inspect(world)
    assert facts.needed is None
    assert facts.usual_duration is None
    assert facts.throttled_recently == 0
    with pytest.raises(NeedsHuman, match="The metrics do not tell why worker is throttled"):
        plan(world)


def test_the_plan_stands_in_the_record_with_what_looks_compare_with(world: World) -> None:
    planned = plan(world)
    assert planned["levers"] == ["reserved-concurrency"]
    assert planned["needs_yes"] is False
    incident = world.load()
    assert incident.diagnosis == "reserved_cap"
    assert incident.happened.startswith("worker had 10/s refused, 100/s served, 10 at once at most")
    assert incident.plan["throttles"] == 3000
    assert incident.plan["hash"] == planned["plan_hash"]


def test_the_change_is_made_and_no_reservation_is_put_back_as_none(world: World) -> None:
    act(world)
    assert world.cloud.reserved == 14
    changes.put_back(world.aws, world.run)
    assert world.cloud.reserved == 10


@pytest.mark.parametrize("cause", ["stop", "cap_hog", "clamp"])
def test_what_refuses_calls_asks_in_every_mode(world: World, cause: str) -> None:
    if cause == "stop":
        world.cloud.series["recursions"] = [5.0] * 5
    elif cause == "clamp":
        world.cloud.series["errors"] = [3000.0] * 5
        world.cloud.baseline["invocations"] = [100.0]
    else:
        world.cloud.reserved = None
        world.cloud.series["account_unreserved"] = [890.0] * 5
        world.cloud.greatest = {"ConcurrentExecutions": {"reports": [700.0]}}
        world.cloud.tags[REPORTS] = dict(OPTED_IN)
    planned = plan(world)
    assert (planned["action"], planned["needs_yes"]) == (cause, True)


def test_looks_judge_until_it_is_relieved(world: World) -> None:
    act(world)
    assert look(world, Look())["verdict"] == "wait"
    world.cloud.series["throttled"] = [0.0, 0.0]
    assert look(world, Look(number=9, measure=5, calm=4))["verdict"] == "wait"
    world.cloud.series["concurrency"] = [10.0, 7.0, 7.0]
    assert look(world, Look(number=9, measure=5, calm=4))["verdict"] == "relieved"
    found = look(world, Look(number=4, calm=4), "calm")
    assert found["verdict"] == "relieved"
    assert "3000 calls refused before" in found["look"]["sentence"]


@pytest.mark.parametrize(
    ("before", "phase", "error"),
    [
        (Look(number=9, measure=5.0, bad=4), "relief", Ineffective),
        (Look(number=9, bad=4), "calm", Recurred),
    ],
)
def test_what_ends_the_watch_badly_is_raised(
    world: World, before: Look, phase: str, error: type[Exception]
) -> None:
    act(world)
    with pytest.raises(error):
        look(world, before, phase)


def test_a_broken_loop_is_contained(world: World) -> None:
    world.cloud.series["recursions"] = [5.0] * 5
    act(world)
    assert world.cloud.reserved == 0
    world.cloud.series["invoked"] = []
    with pytest.raises(Contained, match="It stays stopped until you have mended it"):
        look(world, Look(number=4, calm=4))


def test_what_was_to_pass_by_itself_and_does_not_is_looked_at_again(world: World) -> None:
    world.cloud.series["throttled"] = [0.0, 0.0]
    assert plan(world)["action"] == "watch"
    world.cloud.series["throttled"] = [9.0, 9.0]
    with pytest.raises(WorldMoved, match="It does not pass by itself"):
        look(world, Look(number=9, measure=5.0, bad=4))
