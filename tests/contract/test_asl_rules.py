"""Every rule for state machines finds its planted flaw and leaves a clean machine alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.contract.planting import GONE, planted
from tools.checks import asl_rules, machines

CLEAN = machines.load(Path(__file__).parent / "machines")["clean"]
HANDLED = frozenset({"PlanStale"})

OPEN = ("States", "Open incident")
ASK = ("States", "Ask")
LOOP = ("States", "Has it been asked too often?")
MAP = ("States", "Raise each limit")
INNER = (*MAP, "ItemProcessor", "States", "Raise limit")
CLOSE = ("States", "Close incident")
DONE = ("States", "Done")
FAIL = ("States", "Fail the run")
PASS = {"Type": "Pass", "Comment": "Nothing. By hand: nothing.", "Next": "Done"}
OPEN_RETRY = CLEAN["States"]["Open incident"]["Retry"]


def retrier(**changes: Any) -> list[dict[str, Any]]:
    return [OPEN_RETRY[0] | changes]


# The ids A…/J… number the classes of flaws that linters were compared on; the others are ours.
FLAWS: dict[str, tuple[str, Sequence[str | int], Any]] = {
    "A01 unreachable state": ("unreachable", ("States", "Rest"), PASS),
    "A02 Next to nothing": ("next-unknown", (*OPEN, "Next"), "Aks"),
    "A03 path that is no expression": ("bare-path", (*OPEN, "Arguments", "Payload", "x"), "$..[x"),
    "A04 no Catch": ("catch-missing", (*OPEN, "Catch"), GONE),
    "A05 no Retry": ("retry-missing", (*OPEN, "Retry"), GONE),
    "A06 no TimeoutSeconds": ("task-timeout", (*OPEN, "TimeoutSeconds"), GONE),
    "A07 callback without heartbeat": ("callback-heartbeat", (*ASK, "HeartbeatSeconds"), GONE),
    "A08 callback keeps its token": (
        "callback-token",
        (*ASK, "Arguments", "Payload"),
        "{% {'incident': $incident} %}",
    ),
    "A09 Choice without Default": (
        "choice-default",
        ("States", "Is it approved?", "Default"),
        GONE,
    ),
    "A10 path value taken for text": (
        "bare-path",
        (*CLOSE, "Arguments", "Payload", "incident"),
        "$.incident",
    ),
    "A11 Catch loops for ever": ("loop-unbounded", (*OPEN, "Catch", 0, "Next"), "Open incident"),
    "A12 States.ALL not last": (
        "catch-all-not-last",
        (*ASK, "Catch", 0, "ErrorEquals"),
        ["States.ALL"],
    ),
    "A13 misspelt field": ("unknown-field", (*OPEN, "TimeoutSecond"), 30),
    "A14 neither Next nor End": ("next-missing", (*DONE, "End"), GONE),
    "A15 heartbeat not below timeout": ("heartbeat-too-long", (*ASK, "HeartbeatSeconds"), 900),
    "A16 reads a path no state writes": ("input-lost", (*MAP, "Output"), {"incidnet": 1}),
    "A17 misspelt resource": ("resource", (*OPEN, "Resource"), "arn:aws:states:::lambda:invok"),
    "A18 misspelt API parameter": ("arguments", (*OPEN, "Arguments", "Payloda"), {}),
    "A19 misspelt error": ("error-unknown", (*ASK, "Catch", 0, "ErrorEquals"), ["States.Timout"]),
    "A20 intrinsic in an expression": (
        "function-unknown",
        (*DONE, "Output"),
        "{% States.Fromat('{}', $incident) %}",
    ),
    "A20 intrinsic as text": ("bare-path", (*DONE, "Output"), "States.Format('{}', $incident)"),
    "A21 bad StartAt": ("start-unknown", ("StartAt",), "Opne incident"),
    "A22 transition out of a Map": ("next-unknown", (*INNER, "Next"), "Close incident"),
    "A23 Catch overwrites the input": (
        "input-lost",
        ("States", "Hand over", "Arguments", "Payload", "incident"),
        "{% $states.input.incident %}",
    ),
    "J01 broken JSONata": ("jsonata-syntax", (*DONE, "Output"), "{% {'incident': $incident %}"),
    "J02 undefined variable": ("variable-unset", (*DONE, "Output"), "{% $incidnet %}"),
    "J03 JSONPath's Parameters": ("jsonpath-field", (*OPEN, "Parameters"), {"a": 1}),
    "J04 JSONPath's ResultPath": ("jsonpath-field", (*OPEN, "ResultPath"), "$.a"),
    "J05 JSONPath's Variable": (
        "jsonpath-field",
        ("States", "Is it approved?", "Choices", 0, "Variable"),
        "$.approved",
    ),
    "J06 $state for $states": ("states-typo", (*DONE, "Output"), "{% $state.input %}"),
    "J07 unknown function": ("function-unknown", (*DONE, "Output"), "{% $lenght($incident) %}"),
    "J08 unreachable in JSONata": (
        "unreachable",
        ("States", "Is it approved?", "Choices", 0, "Next"),
        "Hand over",
    ),
    "function by $eval": ("function-unknown", (*DONE, "Output"), "{% $eval('1') %}"),
    "variable set on one way only": (
        "variable-unset",
        (*OPEN, "Catch", 0, "Assign"),
        {"incident": "none"},
    ),
    "variable set in its own state": (
        "variable-unset",
        ("States", "Hand over", "Assign"),
        {"page": 1, "copy": "{% $page %}"},
    ),
    "variable set inside a Map": ("variable-unset", (*DONE, "Output"), "{% $inner %}"),
    "broken expression in a Map": (
        "jsonata-syntax",
        (*INNER, "Arguments", "Payload", "step"),
        "{% $a + %}",
    ),
    "expression half marked": ("bare-path", (*DONE, "Output"), "{% $incident"),
    "result before the task ran": (
        "states-field",
        (*OPEN, "Arguments", "Payload", "x"),
        "{% $states.result %}",
    ),
    "unknown field of $states": ("states-field", (*DONE, "Output"), "{% $states.inptu %}"),
    "error outside a Catch": ("states-field", (*OPEN, "Output"), "{% $states.errorOutput %}"),
    "unknown context": ("states-field", (*DONE, "Output"), "{% $states.context.Execution.id %}"),
    "token outside a callback": (
        "states-field",
        (*OPEN, "Arguments", "Payload", "x"),
        "{% $states.context.Task.Token %}",
    ),
    "condition as text": (
        "choice-condition",
        ("States", "Is it approved?", "Choices", 0, "Condition"),
        "approved",
    ),
    "JSONPath machine": ("query-language", ("QueryLanguage",), "JSONPath"),
    "machine without timeout": ("machine-timeout", ("TimeoutSeconds",), GONE),
    "machine without comment": ("comment-missing", ("Comment",), GONE),
    "unknown field of a machine": ("unknown-field", ("Timeout",), 1),
    "unknown field of a Retry": ("unknown-field", (*OPEN, "Retry"), retrier(Jitter="FULL")),
    "unknown state type": ("type-unknown", (*DONE, "Type"), "Pas"),
    "state without comment": ("comment-missing", (*DONE, "Comment"), GONE),
    "task that says nothing by hand": ("comment-by-hand", (*OPEN, "Comment"), "Undo: none."),
    "choice that says nothing by hand": ("comment-by-hand", (*LOOP, "Comment"), "Was it often?"),
    "task that says nothing of undoing": ("comment-undo", (*OPEN, "Comment"), "By hand: look."),
    "map that says nothing of undoing": ("comment-undo", (*MAP, "Comment"), "By hand: look."),
    "fail that says nothing by hand": ("comment-by-hand", (*FAIL, "Comment"), "It is over."),
    "name too long": ("name-too-long", ("States", "R" * 81), PASS),
    "Choice that asks nothing": ("name-question", ("States", "Approval"), {"Type": "Choice"}),
    "question that is no Choice": ("name-question", ("States", "Done?"), PASS),
    "name that is no order": ("name-imperative", ("States", "Opening incident"), PASS),
    "name in camel case": ("name-imperative", ("States", "OpenIncident"), PASS),
    "Retry on everything": ("retry-all", (*OPEN, "Retry"), retrier(ErrorEquals=["States.ALL"])),
    "Retry on any task failure": (
        "retry-all",
        (*OPEN, "Retry"),
        retrier(ErrorEquals=["States.TaskFailed"]),
    ),
    "Retry without jitter": ("retry-jitter", (*OPEN, "Retry"), retrier(JitterStrategy="NONE")),
    "Retry a hundred times": ("retry-unbounded", (*OPEN, "Retry"), retrier(MaxAttempts=100)),
    "Retry leaves out throttling": (
        "retry-missing",
        (*OPEN, "Retry"),
        retrier(ErrorEquals=["Lambda.ServiceException"]),
    ),
    "Retry missing inside a Map": ("retry-missing", (*INNER, "Retry"), GONE),
    "last Catch on a name": (
        "catch-all-missing",
        (*OPEN, "Catch", 0, "ErrorEquals"),
        ["PlanStale"],
    ),
    "Catch that nothing raises": (
        "error-unknown",
        (*ASK, "Catch", 0, "ErrorEquals"),
        ["PlanStael"],
    ),
    "caught failure ends well": ("catch-succeeds", (*OPEN, "Catch", 0, "Next"), "Done"),
    "caught failure ends well later": ("catch-succeeds", ("States", "Hand over", "Next"), "Done"),
    "caught in a Map ends well": ("catch-succeeds", (*INNER, "Catch", 0, "Next"), "Rest"),
    "loop without a counter": ("loop-unbounded", (*LOOP, "Assign"), {"checks": 0}),
    "loop whose counter nobody asks": (
        "loop-unbounded",
        (*LOOP, "Choices", 0, "Condition"),
        "{% $approved %}",
    ),
    "function named directly": (
        "function-name",
        (*OPEN, "Arguments", "FunctionName"),
        "arn:aws:lambda:eu-west-1:123456789012:function:open-incident",
    ),
    "arguments in one expression": ("arguments", (*OPEN, "Arguments"), "{% $states.input %}"),
}

# Flaws that take a second edit.
ALSO: dict[str, tuple[Sequence[str | int], Any]] = {
    "variable set inside a Map": ((*INNER, "Assign"), {"inner": 1}),
    "caught in a Map ends well": (
        (*MAP, "ItemProcessor", "States", "Rest"),
        {"Type": "Succeed", "Comment": "Fine."},
    ),
}


def rules_broken(machine: dict[str, Any]) -> set[str]:
    findings = asl_rules.check_machine(
        machine, handled_errors=HANDLED, error_classes={"PlanStale", "Rejected"}
    )
    return {finding.rule for finding in findings}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_planted_flaw_is_found(flaw: str) -> None:
    rule, path, value = FLAWS[flaw]
    machine = planted(CLEAN, path, value)
    if flaw in ALSO:
        machine = planted(machine, *ALSO[flaw])

    assert rule in rules_broken(machine)


def test_every_rule_has_a_planted_flaw() -> None:
    source = Path(asl_rules.__file__).read_text("utf-8")
    rules = {line.split('"')[1] for line in source.split("Finding(")[1:] if '"' in line}

    assert rules == {rule for rule, _, _ in FLAWS.values()}


def test_a_clean_machine_is_left_alone() -> None:
    assert rules_broken(CLEAN) == set()


def test_a_handled_error_needs_the_callers_word() -> None:
    findings = asl_rules.check_machine(CLEAN)

    assert [(finding.rule, finding.where) for finding in findings] == [("catch-succeeds", "Ask")]


def test_variables_of_enclosing_states_are_known_inside_and_own_names_are_no_variables() -> None:
    expression = "{% ($one := 1; $f := function($x) { $x + $one }; $f($incident)) %}"
    machine = planted(CLEAN, (*INNER, "Arguments", "Payload", "step"), expression)

    assert rules_broken(machine) == set()


def test_an_error_inside_a_map_is_caught_by_the_map() -> None:
    inside = planted(CLEAN, (*INNER, "Catch"), GONE)

    assert "catch-missing" not in rules_broken(inside)
    assert "catch-missing" in rules_broken(planted(inside, (*MAP, "Catch"), GONE))


def test_asl_validator_tells_the_flawed_machine_from_the_clean_one() -> None:
    flawed = planted(CLEAN, (*DONE, "Output"), "{% $a + %}")

    findings = machines.validate({"clean": CLEAN, "flawed": flawed})

    assert {finding.where for finding in findings} == {"flawed"}
    assert any("Output" in finding.message for finding in findings)


def test_asl_validator_is_spared_the_strings_that_it_refuses_without_need() -> None:
    output = {"empty": "", "lines": "{% $incident\n & 'x' %}", "list": ["", 1, {"a": "b\nc"}]}
    machine = planted(CLEAN, (*DONE, "Output"), output)
    machine = planted(machine, (*ASK, "TimeoutSeconds"), "{% ${AnswerSeconds} * 2 %}")

    assert machines.validate({"m": machine}) == []
    assert rules_broken(machine) == set()


def test_substitutions_are_collected() -> None:
    assert asl_rules.substitutions(CLEAN) == {
        "AskArn",
        "CloseIncidentArn",
        "HandOverArn",
        "OpenIncidentArn",
        "RaiseLimitArn",
    }
