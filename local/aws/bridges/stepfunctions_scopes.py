"""Gaps of Map and Parallel: what fails does not end the rest, variables, JSONata of Parallel.

AWS:

- When an iteration or a branch fails, the whole state fails with its error; the others are aborted
  (history events MapIterationAborted, ParallelStateAborted) and none begins any more. Functions
  that run already are not stopped. An inline Map runs 40 iterations at once at most
  (https://docs.aws.amazon.com/step-functions/latest/dg/state-parallel.html,
  https://docs.aws.amazon.com/step-functions/latest/dg/state-map-inline.html,
  https://docs.aws.amazon.com/step-functions/latest/apireference/API_HistoryEvent.html).
- A branch or an iteration reads the variables of the scopes around it, and has its own besides; one
  that is assigned in an outer scope cannot be assigned in an inner one. JSONata's Parallel has
  `Arguments`, `Output` and `Assign`
  (https://docs.aws.amazon.com/step-functions/latest/dg/workflow-variables.html).
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import contextvars
import copy
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from ministack.services import stepfunctions as sfn

from local.aws.bridges import stepfunctions
from local.aws.bridges.bridge import Bridge

type _State = dict[str, Any]
type _Context = dict[str, Any]

BRIDGE = Bridge("stepfunctions_scopes")
_AT_ONCE = 40


# --- Together, until one fails -----------------------------------------------------------------


def _together(jobs: list[Callable[[], Any]], at_once: int, error: str) -> list[Any]:
    """Run jobs side by side; the first that fails ends the others, and is raised at once."""
    if not jobs:
        return []
    failed = threading.Event()
    failures: list[Exception] = []
    around = stepfunctions.aborts.get()

    def run(job: Callable[[], Any]) -> Any:
        stepfunctions.aborts.set((*around, failed))
        try:
            stepfunctions.stop_if_aborted()
            return job()
        except Exception as failure:
            failures.append(failure)
            failed.set()
            raise

    pool = ThreadPoolExecutor(max_workers=at_once)
    # Each in a context of its own, which has the account and the region.
    futures = [pool.submit(contextvars.copy_context().run, run, job) for job in jobs]
    wait(futures, return_when=FIRST_EXCEPTION)
    pool.shutdown(wait=False, cancel_futures=True)
    if not failures:
        return [future.result() for future in futures]
    if isinstance(failures[0], sfn._ExecutionError | stepfunctions.StoppedError):
        raise failures[0]
    raise sfn._ExecutionError(error, str(failures[0])) from failures[0]


@BRIDGE.replace(sfn, "_run_map_items")
def _run_map_items(state: _State, given: Any, execution: Any, context: _Context) -> Any:
    processor = state.get("ItemProcessor") or {}
    mode = (processor.get("ProcessorConfig") or {}).get("Mode", "INLINE")
    if mode != "INLINE" or sfn._state_query_language(state, context) != "JSONata":
        return _map(state, given, execution, context)
    items = given
    if "Items" in state:
        items = sfn._jsonata_state_field(state, "Items", "array", given, context)
    at_once = 0
    if "MaxConcurrency" in state:
        at_once = int(sfn._jsonata_state_field(state, "MaxConcurrency", "number", given, context))

    def iteration(index: int, item: Any) -> Callable[[], Any]:
        def run() -> Any:
            own = copy.deepcopy(context)
            own["Map"] = {"Item": {"Index": index, "Value": item}}
            taken = item
            if "ItemSelector" in state:
                taken = sfn._apply_jsonata_template(state["ItemSelector"], given, own)
            return sfn._run_sub_machine(
                processor["States"], processor["StartAt"], taken, execution, own
            )

        return run

    jobs = [iteration(index, item) for index, item in enumerate(items)]
    results = _together(jobs, min(at_once or _AT_ONCE, _AT_ONCE), "States.MapFailed")
    return _finish(state, given, context, results)


@BRIDGE.replace(sfn, "_run_parallel_branches")
def _run_parallel_branches(state: _State, given: Any, execution: Any, context: _Context) -> Any:
    if sfn._state_query_language(state, context) != "JSONata":
        return _parallel(state, given, execution, context)
    taken = sfn._apply_jsonata_arguments(state, given, context)

    def branch(machine: dict[str, Any]) -> Callable[[], Any]:
        return lambda: sfn._run_sub_machine(
            machine["States"], machine["StartAt"], taken, execution, copy.deepcopy(context)
        )

    jobs = [branch(machine) for machine in state["Branches"]]
    results = _together(jobs, len(jobs), "States.BranchFailed")
    return _finish(state, given, context, results)


def _finish(state: _State, given: Any, context: _Context, results: list[Any]) -> Any:
    output = sfn._apply_jsonata_output(state, given, context, result=results, default=results)
    sfn._apply_state_assign(state, given, context, result=results)
    return output, sfn._next_or_end(state)


# --- Variables ---------------------------------------------------------------------------------


@BRIDGE.replace(sfn, "_run_sub_machine")
def _run_sub_machine(states: Any, start: str, data: Any, execution: Any, context: _Context) -> Any:
    """Give a branch or an iteration its own state, task token and variables."""
    own = {**context, "variables": dict(context.get("variables", {}))}
    return _sub_machine(states, start, data, execution, own)


@BRIDGE.replace(sfn, "_validate_definition_jsonata")
def _validate(text: Any) -> str | None:
    if problem := _expressions(text):
        return str(problem)
    try:
        states = json.loads(text)["States"]
    except (ValueError, TypeError, KeyError):
        return None
    return _reassigned(states, frozenset()) if isinstance(states, dict) else None


def _reassigned(states: dict[str, _State], around: frozenset[str]) -> str | None:
    """Return what is wrong when a scope assigns a variable of a scope around it."""
    for name, state in states.items():
        if twice := sorted(_assigned(state) & around):
            return (
                f"SCHEMA_VALIDATION_FAILED: The variable '{twice[0]}' is assigned in an outer "
                f"scope and cannot be assigned in the state '{name}'"
            )
    here = around.union(*map(_assigned, states.values()))
    for state in states.values():
        for inner in _scopes(state):
            if problem := _reassigned(inner, here):
                return problem
    return None


def _assigned(state: _State) -> set[str]:
    rules = [state, *(state.get("Catch") or []), *(state.get("Choices") or [])]
    return {name for rule in rules for name in rule.get("Assign") or {}}


def _scopes(state: _State) -> Iterator[dict[str, _State]]:
    for machine in [state.get("ItemProcessor") or {}, *(state.get("Branches") or [])]:
        yield machine.get("States") or {}


_map = BRIDGE.original(sfn, "_run_map_items")
_parallel = BRIDGE.original(sfn, "_run_parallel_branches")
_sub_machine = BRIDGE.original(sfn, "_run_sub_machine")
_expressions = BRIDGE.original(sfn, "_validate_definition_jsonata")
