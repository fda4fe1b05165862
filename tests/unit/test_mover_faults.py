"""Letters on a queue that fails in every way, by seeds: none is lost, none counted wrongly."""

import random

import pytest

from oncall.mover import move
from tests.unit.replay_world import World
from tests.unit.sqs_model import REFUSED_BODY, Odds

SEEDS = 2000
PER_TEST = 100
FLAVOURS = ("refund", "stale", "kept", "damaged", "bounces", REFUSED_BODY)


def world_of(seed: int) -> World:
    rng = random.Random(seed)  # noqa: S311 -- a test's choices
    some = rng.sample(range(8), rng.randint(1, 4))
    odds = Odds(
        lost_request=0.05 * (0 in some),
        lost_reply=0.08 * (1 in some),
        throttled=0.1 * (2 in some),
        failed=0.15 * (3 in some),
        sender_fault=0.05 * (4 in some),
        differs=0.02 * (5 in some),
        stall=0.01 * (6 in some),
    )
    world = World(
        rng,
        fifo=rng.random() < 0.4,
        odds=odds,
        chunk=rng.choice((5, 10, 25, 60)),
        visibility=rng.choice((30, 120)),
        most=rng.choice((10_000, 17)),
        rate=rng.choice((0, 0, 4, 50)),
        consumes=rng.choice((0.02, 0.3)),
        stops=0.02 * (rng.random() < 0.2),
    )
    if not world.fifo:
        world.dlq.short = rng.choice((0.0, 0.2, 0.5))
    if 7 in some:
        world.dlq.retention = rng.choice((400, 1500))
    size = 40_000 if rng.random() < 0.05 else 0
    bodies = [
        f"{number} {rng.choice(FLAVOURS) if rng.random() < 0.2 else ''}"
        + "x" * rng.randint(0, size)
        for number in range(rng.randint(10, 80))
    ]
    world.fill(bodies, groups=rng.choice((1, 3, 12)))
    return world


@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_no_letter_is_lost_whatever_fails(first: int) -> None:
    for seed in range(first, first + PER_TEST):
        world = world_of(seed)
        try:
            world.finish(kills=world.rng.choice((0, 0, 1, 4)))
            world.check()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.parametrize("fifo", [False, True])
def test_a_worker_may_die_at_any_call(fifo: bool) -> None:  # noqa: FBT001 -- pytest's parameter
    calls = _calls_of_a_round(fifo)
    assert calls > 20
    for at in range(1, calls + 1):
        for after in (False, True):
            world = _small_world(fifo)
            assert world.round(at, after=after) is None
            world.finish()
            balance = world.check()
            sent_twice = len(world.queue.arrivals) - len({one.body for one in world.queue.arrivals})
            assert sent_twice <= (0 if fifo else 10), f"dead at {at}, after: {after}"
            assert balance.unknown <= 10


def _small_world(fifo: bool) -> World:  # noqa: FBT001 -- as above
    world = World(random.Random(1), fifo=fifo, chunk=10, consumes=0)  # noqa: S311 -- a test's choices
    world.fill([f"{n} {FLAVOURS[n % 3] if n % 4 == 0 else ''}" for n in range(25)])
    return world


def _calls_of_a_round(fifo: bool) -> int:  # noqa: FBT001 -- as above
    world = _small_world(fifo)
    faults = world.faults()
    move(world.order(), world.ports(faults))
    return faults.calls


def test_letters_that_go_round_within_five_minutes_arrive_each_time() -> None:
    world = World(random.Random(1), fifo=True)  # noqa: S311 -- a test's choices
    world.fill([f"{n} bounces" for n in range(30)])
    began = world.clock()
    for cycle in range(3):
        world.run = f"run-{cycle}"
        tally = move(world.order(), world.ports(world.faults()))
        assert (tally.replayed, tally.left) == (30, {})
        while world.queue.messages:
            world.clock.sleep(6)
            world.consume()

    assert world.clock() - began < 300
    assert len(world.queue.arrivals) == 90
    world.run = "run-3"
    tally = move(world.order(), world.ports(world.faults()))
    assert (tally.replayed, tally.quarantined, tally.bounced) == (0, 30, 0)  # replayed too often


def test_letters_that_bounce_within_their_run_are_quarantined() -> None:
    world = World(random.Random(1))  # noqa: S311 -- a test's choices
    world.fill([f"{n} {'bounces' if n % 2 else ''}" for n in range(30)])

    world.finish()

    assert sum(tally.bounced for tally in world.tallies) == 15
    assert world.check().quarantined == 15
