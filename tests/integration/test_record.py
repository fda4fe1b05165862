"""The record on the embedded AWS: locks, fences, order, decisions; and the table in memory."""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.aws import EmbeddedAws
from oncall.errors import GuardRefused, LockLost, NotFound, TargetBusy
from oncall.incident import Ask, Change, Entry, Incident, Run
from oncall.record import IncidentStore
from tests.integration.tables import make_table
from tests.unit.clock import SetClock
from tests.unit.table import TableInMemory

HOUR = timedelta(hours=1)
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:worker"


@pytest.fixture(scope="module")
def table(embedded_aws: EmbeddedAws) -> Any:
    """One table for all: each test works on a target of its own."""
    return make_table(embedded_aws.session())


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def store(table: Any, clock: SetClock) -> IncidentStore:
    return IncidentStore(table, clock)


_numbers = itertools.count(1)


def fresh(prefix: str = "queue") -> str:
    return f"{prefix}-{next(_numbers)}"


def new(target: str, name: str, **fields: Any) -> Incident:
    return Incident(
        **{
            "id": name,
            "runbook": "queue-saturation",
            "title": "Drain a saturated queue",
            "target": target,
            "target_name": target,
            "mode": "auto",
            "trigger": {"kind": "hand"},
            "execution": f"execution:{name}",
            "fence": 0,
            **fields,
        }
    )


def opened(store: IncidentStore, target: str, name: str, lease: timedelta = HOUR) -> Run:
    incident = store.open(new(target, name), Entry("opened", "opened", "Started."), lease)
    return Run(incident.id, incident.runbook, incident.target, incident.mode, incident.fence)


def a_change(resource: str = FUNCTION, **fields: Any) -> Change:
    return Change(
        **{
            "lever": "reserved-concurrency",
            "resource": resource,
            "name": "worker's reserved concurrency",
            "before": None,
            "after": 60,
            "why": "it is at its cap",
            "undo": "aws …",
            "expires_at": "2026-11-23T04:00:00.000Z",
            **fields,
        }
    )


def note(name: str) -> Entry:
    return Entry(name, "inspected", f"Entry {name}.")


def close(store: IncidentStore, run: Run, outcome: str = "resolved") -> Incident:
    return store.close(run, outcome, "Over.", Entry("closed", "closed", "Over."))


def in_threads[T](work: list[Callable[[], T]]) -> list[T]:
    barrier = threading.Barrier(len(work))

    def one(do: Callable[[], T]) -> T:
        barrier.wait()
        return do()

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(one, work))


# Locks


def test_one_target_has_one_holder_and_the_other_is_told_who(store: IncidentStore) -> None:
    target = fresh()
    first, second = fresh("run"), fresh("run")
    opened(store, target, first)
    with pytest.raises(TargetBusy, match=f"Incident {first} is already working") as busy:
        opened(store, target, second)
    assert busy.value.holder == first
    assert store.find(second) is None
    assert store.holder(target) == first


def test_of_ten_that_open_at_once_one_gets_the_target(store: IncidentStore) -> None:
    target = fresh()
    names = [fresh("run") for _ in range(10)]

    def one(name: str) -> str:
        try:
            return opened(store, target, name).incident
        except TargetBusy as busy:
            return f"busy {busy.holder}"

    answers = in_threads([lambda name=name: one(name) for name in names])  # type: ignore[misc]  # bound
    (winner,) = [answer for answer in answers if not answer.startswith("busy")]
    assert set(answers) == {winner, f"busy {winner}"}
    assert [name for name in names if store.find(name)] == [winner]


def test_a_late_writer_is_told_and_has_written_nothing(
    store: IncidentStore, clock: SetClock
) -> None:
    target = fresh()
    late = opened(store, target, fresh("run"))
    clock.now += 2 * HOUR
    holder = opened(store, target, fresh("run"))
    assert holder.fence == late.fence + 1
    before = store.load(late.incident)
    resource = fresh("resource")
    acts: list[Callable[[], object]] = [
        lambda: store.note(late, note("late"), doing="Something."),
        lambda: store.note(late, Entry("opened", "opened", "Again.")),
        lambda: store.lease_change(late, a_change(resource), note("intend")),
        lambda: store.put_ask(late, an_ask("late"), note("asked")),
        lambda: close(store, late),
    ]
    for act in acts:
        with pytest.raises(LockLost):
            act()
    assert store.load(late.incident) == before
    assert store.lease("reserved-concurrency", resource) is None
    assert store.ask(late.incident, "late") is None
    assert store.holder(target) == holder.incident
    store.note(holder, note("fine"))


def test_a_run_that_only_observes_holds_nothing(store: IncidentStore) -> None:
    target = fresh()
    held = opened(store, target, fresh("run"))
    for name in (fresh("run"), fresh("run")):
        seen = store.open(new(target, name, mode="observe"), note("opened"), HOUR)
        close(store, Run(seen.id, seen.runbook, target, "observe", seen.fence), "observed")
    assert store.holder(target) == held.incident
    store.note(held, note("fine"))


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["open", "note", "close", "give_up", "wait"]), st.integers(0, 2)),
        min_size=3,
        max_size=14,
    ),
    skews=st.lists(st.integers(-20, 20), min_size=3, max_size=3),
)
def test_no_two_runs_ever_write_to_one_target(  # noqa: C901 -- its moves read best together
    table: Any, moves: list[tuple[str, int]], skews: list[int]
) -> None:
    """Three owners with clocks that differ, leases that run out, and runs that come too late."""
    base = SetClock()
    stores = [
        IncidentStore(table, lambda skew=skew: base() + timedelta(minutes=skew))  # type: ignore[misc]  # bound
        for skew in skews
    ]
    target = fresh()
    runs: list[Run] = []
    newest = 0
    live: Run | None = None
    for move, who in moves:
        store = stores[who]
        if move == "wait":
            base.now += timedelta(minutes=25)
        elif move == "open":
            expired = live is None or _expired(stores[who], live)
            run = None
            try:
                run = opened(store, target, fresh("run"))
            except TargetBusy as busy:
                holder = busy.holder
            else:
                holder = run.incident
            if not expired:
                assert run is None
                assert live is not None
                assert holder == live.incident
                continue
            assert run is not None
            assert run.fence > newest
            newest, live = run.fence, run
            runs.append(run)
        elif runs:
            run = runs[who % len(runs)]
            seq = store.load(run.incident).seq
            try:
                if move == "note":
                    store.note(run, note(fresh("entry")))
                    assert run == live
                elif move == "close":
                    was_closed = store.load(run.incident).status == "closed"
                    close(store, run)
                    assert run == live or was_closed
                    live = None if run == live else live
                else:
                    gave = store.give_up_lock(run)
                    assert gave is (run == live)
                    live = None if gave else live
            except LockLost:
                assert run != live
                assert store.load(run.incident).seq == seq


def _expired(store: IncidentStore, run: Run) -> bool:
    return datetime.fromisoformat(store.load(run.incident).lease_until) <= store.now()


# Opening and closing


def test_opening_again_is_the_same_incident_and_another_execution_is_refused(
    store: IncidentStore,
) -> None:
    target, name = fresh(), fresh("run")
    first = opened(store, target, name)
    assert opened(store, target, name) == first
    with pytest.raises(GuardRefused, match="from another execution"):
        store.open(new(target, name, execution="other"), note("opened"), HOUR)
    with pytest.raises(GuardRefused, match="from another execution"):
        store.open(new(fresh(), name, execution="other"), note("opened"), HOUR)
    close(store, first)
    with pytest.raises(GuardRefused, match=r"has ended \(resolved\)"):
        opened(store, target, name)
    assert [entry.id for entry in store.load(name).entries] == ["opened", "closed"]


def test_closing_twice_closes_once_and_frees_the_target(
    store: IncidentStore, clock: SetClock
) -> None:
    target = fresh()
    run = opened(store, target, fresh("run"))
    first = close(store, run)
    clock.now += timedelta(minutes=1)
    assert close(store, run, "failed") == first
    assert (first.status, first.outcome, first.phase) == ("closed", "resolved", "closed")
    (past,) = store.past_runs(target, clock.now - HOUR)
    assert (past["outcome"], past["incident"]) == ("resolved", run.incident)
    assert not store.past_runs(target, clock.now)
    assert store.holder(target) == ""
    after = opened(store, target, fresh("run"))
    assert after.fence == run.fence + 1
    assert not store.note_from_outside(run.incident, note("late"))
    with pytest.raises(LockLost, match="has closed"):
        store.note(run, note("late"))


def test_a_wound_down_run_closes_and_leaves_the_lock_to_the_other(
    store: IncidentStore, clock: SetClock
) -> None:
    target = fresh()
    lost = opened(store, target, fresh("run"))
    resource = fresh("resource")
    store.lease_change(lost, a_change(resource), note("intend"))
    clock.now += 2 * HOUR
    holder = opened(store, target, fresh("run"))
    ending = replace(lost, winding_down=True, round=0)
    (change,) = store.load(lost.incident).changes
    store.update_change(ending, replace(change, state="put_back"), note("put-back"))
    assert store.lease("reserved-concurrency", resource) is None
    closed = close(store, ending, "failed")
    assert (closed.status, closed.outcome) == ("closed", "failed")
    assert store.holder(target) == holder.incident
    # What is put back after the end stands in the timeline; how it ended stays.
    store.note(ending, note("after"), outcome="resolved")
    assert store.load(lost.incident).outcome == "failed"
    assert store.load(lost.incident).entries[-1].id == "after"


def test_a_wound_down_run_gives_its_own_lock_back(store: IncidentStore) -> None:
    target = fresh()
    run = opened(store, target, fresh("run"))
    close(store, replace(run, winding_down=True), "failed")
    assert store.holder(target) == ""
    assert not [row for row in store.opened("lock") if row["target"] == target]


def test_locks_past_their_lease_are_found_and_given_up(
    store: IncidentStore, clock: SetClock
) -> None:
    target = fresh()
    run = opened(store, target, fresh("run"))
    seen = store.open(new(target, fresh("run"), mode="observe"), note("opened"), HOUR)
    mine = {run.incident, seen.id}
    assert not [lock for lock in store.locks_past_lease() if lock.incident in mine]
    clock.now += 2 * HOUR
    late = [lock for lock in store.locks_past_lease() if lock.incident in mine]
    assert len(late) == 2
    assert all(store.give_up_lock(lock) for lock in late)
    assert not any(store.give_up_lock(lock) for lock in late)
    assert opened(store, target, fresh("run")).fence == run.fence + 1


def test_what_was_refused_is_written_closed_and_takes_no_lock(store: IncidentStore) -> None:
    target, name = fresh(), fresh("run")
    refused = new(target, name, outcome="refused")
    for _ in range(2):
        written = store.open_closed(refused, note("refused"), note("paged"))
        assert (written.status, written.outcome) == ("closed", "refused")
        assert [(entry.id, entry.seq) for entry in written.entries] == [
            ("refused", 1),
            ("paged", 2),
        ]
    assert store.holder(target) == ""
    assert not [row for row in store.opened("incident") if row["id"] == name]


# Entries


def test_the_same_entry_twice_is_one(store: IncidentStore) -> None:
    run = opened(store, fresh(), fresh("run"))
    store.note(run, Entry("a", "planned", "First.", data={"n": 1.5}), doing="One.")
    store.note(run, Entry("a", "planned", "Second."), doing="Two.")
    incident = store.load(run.incident)
    assert [(entry.text, entry.seq) for entry in incident.entries] == [
        ("Started.", 1),
        ("First.", 2),
    ]
    assert incident.entries[1].data == {"n": 1.5}
    assert (incident.doing, incident.seq) == ("One.", 2)


def test_eight_writers_at_once_leave_no_gap_and_lose_nothing(store: IncidentStore) -> None:
    run = opened(store, fresh(), fresh("run"))

    def write(number: int) -> None:
        for at in range(3):
            if number % 2:
                store.note(run, note(f"{number}-{at}"))
            else:
                assert store.note_from_outside(run.incident, note(f"{number}-{at}"))

    in_threads([lambda number=number: write(number) for number in range(8)])  # type: ignore[misc]  # bound
    entries = store.load(run.incident).entries
    assert [entry.seq for entry in entries] == list(range(1, 26))
    assert {entry.id for entry in entries[1:]} == {f"{n}-{at}" for n in range(8) for at in range(3)}
    for number in range(8):
        own = [entry.id for entry in entries if entry.id.startswith(f"{number}-")]
        assert own == [f"{number}-{at}" for at in range(3)]


def test_an_incident_that_there_is_not_is_not_found(store: IncidentStore) -> None:
    with pytest.raises(NotFound, match="There is no incident 'none'"):
        store.load("none")
    with pytest.raises(NotFound):
        store.note_from_outside("none", note("x"))
    assert store.find("none") is None


# Changes


def test_a_setting_is_leased_to_one_incident_at_a_time(store: IncidentStore) -> None:
    resource = fresh("resource")
    runs = [opened(store, fresh(), fresh("run")) for _ in range(4)]

    def lease(run: Run) -> str:
        try:
            store.lease_change(run, a_change(resource), note("intend"))
        except GuardRefused as refused:
            return str(refused)
        return ""

    answers = in_threads([lambda run=run: lease(run) for run in runs])  # type: ignore[misc]  # bound
    assert answers.count("") == 1
    winner = runs[answers.index("")]
    held = store.lease("reserved-concurrency", resource)
    assert held is not None
    assert held.incident == winner.incident
    for run, answer in zip(runs, answers, strict=True):
        assert (f"leased to incident {winner.incident}" in answer) is (run != winner)
        assert len(store.load(run.incident).changes) == (run == winner)
    store.update_change(winner, replace(held, state="put_back"), note("put-back"))
    assert store.lease("reserved-concurrency", resource) is None
    assert lease(runs[0] if winner != runs[0] else runs[1]) == ""


@pytest.mark.parametrize("value", [None, 0, 20, True, False, "off", '{"state": "on"}'])
def test_values_are_kept_as_they_are(store: IncidentStore, value: Any) -> None:
    run = opened(store, fresh(), fresh("run"))
    store.lease_change(run, a_change(fresh("r"), before=value, after=[value]), note("intend"))
    (change,) = store.load(run.incident).changes
    assert (change.before, type(change.before), change.after) == (value, type(value), [value])


def test_an_open_lease_is_found_when_it_is_due(store: IncidentStore, clock: SetClock) -> None:
    run = opened(store, fresh(), fresh("run"))
    resource = fresh("resource")
    store.lease_change(run, a_change(resource), note("intend"))
    due = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)

    def found(moment: datetime) -> bool:
        return resource in {row["resource"] for row in store.opened("change", moment)}

    assert found(due)
    assert not found(due - timedelta(seconds=1))
    assert clock() < due


# Questions


def an_ask(name: str = "ask-1", **fields: Any) -> Ask:
    return Ask(
        **{
            "id": name,
            "plan_hash": "c0ffee",
            "token": "token-1",
            "deadline": "2026-11-23T03:04:00.000Z",
            "people": 1,
            "level": 1,
            **fields,
        }
    )


def test_of_ten_decisions_at_once_the_first_wins(store: IncidentStore) -> None:
    run = opened(store, fresh(), fresh("run"))
    before = an_ask()
    store.put_ask(run, before, note("asked"))

    def decide(who: int) -> bool:
        state = "approved" if who % 2 else "rejected"
        after = replace(before, state=state, approvals=({"by": str(who)},))
        return store.decide(run.incident, before, after, note(f"decided-{who}"), doing=str(who))

    answers = in_threads([lambda who=who: decide(who) for who in range(10)])  # type: ignore[misc]  # bound
    assert answers.count(True) == 1
    winner = answers.index(True)
    decided = store.ask(run.incident, before.id)
    assert decided is not None
    assert decided.approvals == ({"by": str(winner)},)
    incident = store.load(run.incident)
    assert [entry.id for entry in incident.entries] == ["opened", "asked", f"decided-{winner}"]
    assert (incident.doing, incident.ask["state"]) == (str(winner), decided.state)
    assert not decide(99)


def test_a_question_keeps_its_answer_and_takes_the_newest_token(store: IncidentStore) -> None:
    run = opened(store, fresh(), fresh("run"))
    before = an_ask()
    store.put_ask(run, before, note("asked"))
    assert store.decide(run.incident, before, replace(before, state="approved"), note("decided"))
    store.ask_delivered(run.incident, before.id)
    store.put_ask(run, replace(before, token="token-2"), note("asked"))
    found = store.ask(run.incident, before.id)
    assert found == replace(before, state="approved", token="token-2", delivered=False)
    assert "token" not in repr(store.load(run.incident))


def test_a_closed_incident_and_an_older_question_take_no_decision(store: IncidentStore) -> None:
    run = opened(store, fresh(), fresh("run"))
    first, second = an_ask("ask-1"), an_ask("ask-2")
    store.put_ask(run, first, note("asked-1"))
    store.put_ask(run, second, note("asked-2"))
    assert not store.decide(run.incident, first, replace(first, state="approved"), note("d-1"))
    close(store, run)
    assert not store.decide(run.incident, second, replace(second, state="approved"), note("d-2"))
    assert [store.ask(run.incident, ask.id) for ask in (first, second)] == [first, second]


# Small things


def test_counts_are_by_window(store: IncidentStore, clock: SetClock) -> None:
    name = fresh("count")
    assert [store.count(name, HOUR) for _ in range(3)] == [1, 2, 3]
    clock.now += timedelta(minutes=5)
    assert store.count(name, HOUR) == 4
    clock.now += timedelta(minutes=1)
    assert store.count(name, HOUR) == 1
    assert store.count(fresh("count"), HOUR) == 1


def test_a_request_is_used_up_once(store: IncidentStore) -> None:
    digest = fresh("digest")
    answers = in_threads([lambda: store.first_time(digest, HOUR) for _ in range(6)])
    assert sorted(answers) == [False] * 5 + [True]


def test_the_right_to_report_is_one_reporters_until_it_runs_out(
    store: IncidentStore, clock: SetClock
) -> None:
    name = fresh("run")
    minute = timedelta(minutes=1)
    assert store.claim_report(name, minute)
    assert not store.claim_report(name, minute)
    clock.now += timedelta(seconds=61)
    assert store.claim_report(name, minute)
    store.release_report(name)
    assert store.claim_report(name, minute)
    assert store.report_state(name) == {}
    store.put_report_state(name, {"n": 1.5}, owed=True)
    assert store.report_state(name) == {"n": 1.5}


# The table in memory

MOVES: dict[str, Callable[[IncidentStore, Run, str], object]] = {
    "note": lambda store, run, _: store.note(run, note("same"), doing="x"),
    "note other": lambda store, run, _: store.note(run, note("other")),
    "outside": lambda store, run, _: store.note_from_outside(run.incident, note("outside")),
    "lease": lambda store, run, resource: store.lease_change(run, a_change(resource), note("i")),
    "end change": lambda store, run, resource: store.update_change(
        run, a_change(resource, incident=run.incident, state="put_back"), note("p")
    ),
    "ask": lambda store, run, _: store.put_ask(run, an_ask(), note("asked")),
    "decide": lambda store, run, _: store.decide(
        run.incident, an_ask(), an_ask(state="approved"), note("decided")
    ),
    "delivered": lambda store, run, _: store.ask_delivered(run.incident, "ask-1"),
    "close": lambda store, run, _: close(store, run).status,
    "wind down": lambda store, run, _: close(store, replace(run, winding_down=True)).outcome,
    "give up": lambda store, run, _: store.give_up_lock(run),
    "count": lambda store, run, _: store.count(run.target, HOUR),
    "first": lambda store, run, _: store.first_time(run.target, HOUR),
    "claim": lambda store, run, _: store.claim_report(run.incident, HOUR),
    "release": lambda store, run, _: store.release_report(run.incident),
    "reopen": lambda store, run, _: opened(store, run.target, run.incident),
    "holder": lambda store, run, _: store.holder(run.target) == run.incident,
}


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(moves=st.lists(st.tuples(st.sampled_from(sorted(MOVES)), st.integers(0, 1)), max_size=12))
def test_the_table_in_memory_behaves_as_the_embedded_one(
    table: Any, moves: list[tuple[str, int]]
) -> None:
    targets, names, resource = [fresh(), fresh()], [fresh("run"), fresh("run")], fresh("resource")
    left = []
    tables: list[Any] = [table, TableInMemory()]
    for each in tables:
        store = IncidentStore(each, SetClock())
        runs = [opened(store, target, name) for target, name in zip(targets, names, strict=True)]
        left.append([_played(store, runs[who], move, resource) for move, who in moves])
        left.append([store.load(name) for name in names])
        left.append([_raw(each, pk) for pk in _keys(targets, names, resource)])
    real, mirrored = left[:3], left[3:]
    assert mirrored == real


def _played(store: IncidentStore, run: Run, move: str, resource: str) -> object:
    try:
        return MOVES[move](store, run, resource)
    except Exception as error:  # noqa: BLE001 -- whatever the one raises, the other has to raise
        return type(error).__name__


def _keys(targets: list[str], names: list[str], resource: str) -> Iterator[tuple[str, str]]:
    for target, name in zip(targets, names, strict=True):
        yield f"TARGET#{target}", "LOCK"
        yield f"INCIDENT#{name}", "RECORD"
        yield f"INCIDENT#{name}", "REPORTING"
        yield f"INCIDENT#{name}", "ASK#ask-1"
    yield f"SETTING#reserved-concurrency#{resource}", "LEASE"


def _raw(table: Any, key: tuple[str, str]) -> Any:
    pk, sk = key
    with suppress(KeyError):
        return table.get_item(Key={"pk": pk, "sk": sk}, ConsistentRead=True)["Item"]
    return None


def test_incidents_that_started_since_are_listed_latest_first(
    store: IncidentStore, clock: SetClock
) -> None:
    clock.now += timedelta(days=30)
    begin = clock.now
    first, second = fresh("run"), fresh("run")
    for name in (first, second):
        clock.now += timedelta(minutes=1)
        opened(store, fresh(), name)
    assert [incident.id for incident in store.started(begin)] == [second, first]
    assert [incident.id for incident in store.started(clock.now)] == [second]
