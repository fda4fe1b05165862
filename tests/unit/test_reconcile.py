"""The sweep's own logic: how an execution's end is told, and that one failure stops nothing."""

import pytest

import reconcile
from oncall import endings
from oncall.errors import SweepIncomplete


@pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT", "SUCCEEDED"])
def test_an_execution_that_has_ended_by_itself_is_a_lost_run_that_pages(status: str) -> None:
    ending = reconcile._ending({"status": status, "error": "States.Runtime", "cause": "$.x"})
    assert ending["error"] == "RunLost"
    assert status in ending["cause"]
    assert "States.Runtime: $.x" in ending["cause"]
    assert endings.outcome(endings.read(ending), "auto") == "failed"


def test_an_execution_that_a_person_has_stopped_is_an_aborted_run() -> None:
    ending = reconcile._ending({"status": "ABORTED", "cause": "wrong queue"})
    assert endings.outcome(endings.read(ending), "auto") == "aborted"
    assert "wrong queue" in ending["cause"]


def test_an_execution_that_is_gone_is_a_lost_run() -> None:
    assert reconcile._ending(None)["error"] == "RunLost"


def test_one_failing_item_keeps_none_of_the_others_from_being_done() -> None:
    sweep = reconcile._Sweep(lambda: False)
    seen: list[int] = []

    def do(item: int) -> str:
        if item == 2:
            raise ValueError("no luck")
        seen.append(item)
        return "done"

    sweep.each("number", lambda: [1, 2, 3], str, do)
    sweep.each("letter", broken, str, do)
    sweep.each("last", lambda: [4], str, do)
    with pytest.raises(SweepIncomplete) as told:
        sweep.end()
    assert seen == [1, 3, 4]
    assert "number 2 (ValueError: no luck)" in str(told.value)
    assert "letter (KeyError" in str(told.value)


def broken() -> list[int]:
    raise KeyError("x")


def test_a_sweep_that_runs_out_of_time_says_how_much_it_has_left_undone() -> None:
    answers = iter([False, True])
    sweep = reconcile._Sweep(lambda: next(answers))
    sweep.each("number", lambda: [1, 2, 3], str, lambda _item: "done")
    with pytest.raises(SweepIncomplete, match="no time left for 2"):
        sweep.end()
    assert sweep.done == {"done": 1}


def test_a_sweep_counts_what_it_has_done() -> None:
    sweep = reconcile._Sweep(lambda: False)
    sweep.each("number", lambda: [1, 2, 3], str, lambda item: "odd" if item % 2 else "")
    assert sweep.end() == {"odd": 2}
