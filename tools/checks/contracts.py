"""Rules for runbook contracts: a contract must say what its state machine does, and no more."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator

from tools.checks import asl_rules, comments
from tools.checks.finding import Finding
from tools.checks.template_rules import AWS_METRICS

type Contract = Mapping[str, Any]


def check_contract(
    name: str, contract: Contract, schema: Mapping[str, Any], parameters: Collection[str]
) -> list[Finding]:
    """Check a contract by itself. `name` is that of its file, `parameters` are the template's."""
    wrong = [
        Finding("contract-schema", f"{name}: {error.json_path}", error.message)
        for error in Draft202012Validator(schema).iter_errors(contract)
    ]
    if wrong:
        return sorted(wrong)  # the other rules read what the schema promises
    return sorted(
        [*_identity(name, contract), *_inputs(name, contract), *_limits(name, contract, parameters)]
    )


def _identity(name: str, contract: Contract) -> Iterator[Finding]:
    if contract["id"] != name:
        yield Finding("contract-id", name, f"its id is {contract['id']!r}")
    trigger = contract["trigger"]
    if trigger["input"] not in contract["inputs"]:
        yield Finding("contract-trigger", name, f"no input is named {trigger['input']!r}")
    published = AWS_METRICS.get(trigger["namespace"], {})
    for metric in trigger["metrics"]:
        by = published.get(metric, set())
        if not any(trigger["dimension"] in dimensions for dimensions in by):
            yield Finding(
                "contract-trigger",
                name,
                f"{trigger['namespace']} has no {metric} by {trigger['dimension']}",
            )


def _inputs(name: str, contract: Contract) -> Iterator[Finding]:
    for field, schema in contract["inputs"].items():
        where = f"{name}: inputs.{field}"
        if not Draft202012Validator(Draft202012Validator.META_SCHEMA).is_valid(schema):
            yield Finding("contract-input", where, "is not a JSON Schema")
            continue
        if "pattern" in schema:
            try:
                re.compile(schema["pattern"])
            except re.error as broken:
                yield Finding("contract-input", where, f"pattern: {broken}")
                continue
        examples = [*schema["examples"], *([schema["default"]] if "default" in schema else [])]
        for example in examples:
            for error in Draft202012Validator(schema).iter_errors(example):
                yield Finding("contract-example", where, f"{example!r}: {error.message}")


def _limits(name: str, contract: Contract, parameters: Collection[str]) -> Iterator[Finding]:
    """Find numbers that are said a second time, by the template or by the contract itself."""
    for number in sorted(contract["limits"].keys() & contract["verification"].keys()):
        yield Finding("limit-twice", name, f"{number} is a limit and verified by as well")
    said = {parameter.lower() for parameter in parameters}
    numbers = [*contract["limits"], *contract["verification"]]
    for limit in numbers:
        if limit.replace("_", "") in said:
            yield Finding("limit-twice", name, f"{limit} is a template parameter as well")


def meanings(text: str, contract: Contract, schema: Mapping[str, Any]) -> dict[str, str]:
    """Return what each number of a contract means, as far as it is said.

    The schema describes those that every runbook has; a comment above a number describes it better.
    """
    above = comments.above(text)
    return {
        number: said
        for part in ("limits", "verification")
        for number, value in contract[part].items()
        if isinstance(value, int | float)
        if (
            said := above.get((part, number))
            or schema["properties"][part]["properties"].get(number, {}).get("description", "")
        )
    }


def check_numbers(
    name: str, text: str, contract: Contract, schema: Mapping[str, Any]
) -> list[Finding]:
    """Find numbers that say nothing to whoever reads the runbook's page. `text` is the file's."""
    numbers = {
        number
        for part in ("limits", "verification")
        for number, value in contract[part].items()
        if isinstance(value, int | float)
    }
    return [
        Finding("number-unexplained", name, f"{number} has no comment that says what it means")
        for number in sorted(numbers - meanings(text, contract, schema).keys())
    ]


def check_agreement(
    name: str,
    contract: Contract,
    machine: Mapping[str, Any],
    *,
    verifies: Collection[str],
    puts_back: Collection[str],
) -> list[Finding]:
    """Compare a contract with the machine of the same name.

    `verifies` are the substitutions of the functions that look whether a change has helped, and
    `puts_back` those of the functions that undo: what is undone needs no look.
    """
    tasks = _tasks(machine["States"])
    steps = {step["state"] for step in contract["steps"]}
    findings = [
        Finding("step-missing", name, f"the contract says nothing about the task {task!r}")
        for task in tasks.keys() - steps
    ]
    findings += [
        Finding("step-unknown", name, f"the machine has no task {step!r}")
        for step in steps - tasks.keys()
    ]
    if machine.get("TimeoutSeconds") != contract["limits"]["run_seconds"]:
        findings.append(Finding("run-seconds", name, "limits.run_seconds is not TimeoutSeconds"))
    looks, undoes = (
        {
            task
            for task, state in tasks.items()
            if str(state.get("Arguments", {}).get("FunctionName"))
            in {f"${{{one}}}" for one in some}
        }
        for some in (verifies, puts_back)
    )
    changes = {step["state"] for step in contract["steps"] if step["changes"]} & tasks.keys()
    findings += _unverified(name, machine["States"], changes - undoes, looks | undoes)
    return sorted(findings)


def _tasks(states: asl_rules.States) -> dict[str, asl_rules.State]:
    """Return the Task states by name, those inside Map and Parallel too."""
    found = {name: state for name, state in states.items() if state["Type"] == "Task"}
    for state in states.values():
        for part in (*state.get("Branches", ()), *filter(None, [state.get("ItemProcessor")])):
            found |= _tasks(part["States"])
    return found


def _unverified(
    name: str, states: asl_rules.States, changes: Collection[str], looks: Collection[str]
) -> Iterator[Finding]:
    """Find ways from a change to a good end on which nobody looks at it or undoes it."""
    ways = [edge for edge in asl_rules.edges(states) if edge.source not in looks]
    for change in sorted(changes):
        # A task inside a Map is followed by what follows the Map.
        outer = next(
            (top for top, state in states.items() if change in {top, *_tasks({top: state})}), change
        )
        ends = [
            state
            for state in asl_rules.reachable(outer, ways) - set(looks)
            if states.get(state, {}).get("Type") == "Succeed"
            or states.get(state, {}).get("End") is True
        ]
        if ends:
            yield Finding(
                "change-unverified", name, f"{change!r} can end well in {min(ends)!r} unseen"
            )
