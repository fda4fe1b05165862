"""Rules for Amazon States Language definitions in JSONata: a definition in, findings out.

They add to `asl-validator` (schema, transitions, syntax) what makes a runbook safe to leave alone
at night: timeouts, retries on the transient Lambda errors only, every failure caught and ending in
a Fail state, loops with an end, variables that are set before they are read, and a picture that
explains itself in the console.

Language: https://docs.aws.amazon.com/step-functions/latest/dg/concepts-amazon-states-language.html
and https://states-language.net.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools.checks import expressions
from tools.checks.finding import Finding

type State = Mapping[str, Any]
type States = Mapping[str, State]

LAMBDA_INVOKE = "arn:aws:states:::lambda:invoke"
LAMBDA_CALLBACK = f"{LAMBDA_INVOKE}.waitForTaskToken"
# https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
_INVOKE_PARAMETERS = frozenset(
    {"ClientContext", "FunctionName", "InvocationType", "LogType", "Payload", "Qualifier"}
)
# https://docs.aws.amazon.com/step-functions/latest/dg/bp-lambda-serviceexception.html
TRANSIENT_LAMBDA_ERRORS = frozenset(
    {
        "Lambda.AWSLambdaException",
        "Lambda.SdkClientException",
        "Lambda.ServiceException",
        "Lambda.TooManyRequestsException",
    }
)
# https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html, and what a
# Lambda runtime reports of a function that died or ran out of time.
_RESERVED_ERRORS = frozenset(
    {
        "Lambda.Unknown",
        "Runtime.ExitError",
        "Sandbox.Timedout",
        "States.ALL",
        "States.BranchFailed",
        "States.DataLimitExceeded",
        "States.ExceedToleratedFailureThreshold",
        "States.HeartbeatTimeout",
        "States.ItemReaderFailed",
        "States.NoChoiceMatched",
        "States.Permissions",
        "States.QueryEvaluationError",
        "States.ResultWriterFailed",
        "States.Runtime",
        "States.TaskFailed",
        "States.Timeout",
        *TRANSIENT_LAMBDA_ERRORS,
    }
)
_CATCH_ALL_ERRORS = frozenset({"States.ALL", "States.TaskFailed"})
_MAX_ATTEMPTS = 10
_MAX_NAME_LENGTH = 80

_MACHINE_FIELDS = frozenset(
    {"Comment", "QueryLanguage", "StartAt", "States", "TimeoutSeconds", "Version"}
)
_COMMON_FIELDS = frozenset({"Assign", "Comment", "End", "Next", "Output", "Type"})
_FIELDS: Mapping[str, frozenset[str]] = {
    "Choice": frozenset({"Assign", "Choices", "Comment", "Default", "Output", "Type"}),
    "Fail": frozenset({"Cause", "Comment", "Error", "Type"}),
    "Map": _COMMON_FIELDS
    | {
        "Catch",
        "ItemBatcher",
        "ItemProcessor",
        "ItemReader",
        "ItemSelector",
        "Items",
        "Label",
        "MaxConcurrency",
        "ResultWriter",
        "Retry",
        "ToleratedFailureCount",
        "ToleratedFailurePercentage",
    },
    "Parallel": _COMMON_FIELDS | {"Arguments", "Branches", "Catch", "Retry"},
    "Pass": _COMMON_FIELDS,
    "Succeed": frozenset({"Comment", "Output", "Type"}),
    "Task": _COMMON_FIELDS
    | {
        "Arguments",
        "Catch",
        "Credentials",
        "HeartbeatSeconds",
        "Resource",
        "Retry",
        "TimeoutSeconds",
    },
    "Wait": _COMMON_FIELDS | {"Seconds", "Timestamp"},
}
_RETRY_FIELDS = frozenset(
    {
        "BackoffRate",
        "Comment",
        "ErrorEquals",
        "IntervalSeconds",
        "JitterStrategy",
        "MaxAttempts",
        "MaxDelaySeconds",
    }
)
_CATCH_FIELDS = frozenset({"Assign", "Comment", "ErrorEquals", "Next", "Output"})
_RULE_FIELDS = frozenset({"Assign", "Comment", "Condition", "Next", "Output"})
# JSONPath's fields, which a JSONata state does not have:
# https://docs.aws.amazon.com/step-functions/latest/dg/transforming-data.html
_JSONPATH_FIELDS = frozenset(
    {
        "CausePath",
        "ErrorPath",
        "HeartbeatSecondsPath",
        "InputPath",
        "ItemsPath",
        "OutputPath",
        "Parameters",
        "Result",
        "ResultPath",
        "ResultSelector",
        "SecondsPath",
        "TimeoutSecondsPath",
        "TimestampPath",
        "Variable",
    }
)
# A string that was meant as an expression but lacks its {% %}.
_BARE_PATH = re.compile(r"\$(?!\{)\$?[.\w\[]|States\.[A-Z]\w*\(")
_BARE_MARKERS = re.compile(r"\{%|%\}")
_BY_HAND = re.compile(r"\bby hand\b", re.IGNORECASE)
_UNDO = re.compile(r"\bundo\b", re.IGNORECASE)
_NOT_AN_ORDER = re.compile(r"^[^A-Z]|^\w{3,}(ing|ed)\b|[_.:]|[a-z][A-Z]")

# https://docs.aws.amazon.com/step-functions/latest/dg/input-output-contextobject.html
_CONTEXT: Mapping[str, frozenset[str]] = {
    "Execution": frozenset(
        {"Id", "Input", "Name", "RedriveCount", "RedriveTime", "RoleArn", "StartTime"}
    ),
    "Map": frozenset({"Item"}),
    "State": frozenset({"EnteredTime", "Name", "RetryCount"}),
    "StateMachine": frozenset({"Id", "Name"}),
    "Task": frozenset({"Token"}),
}


@dataclass(frozen=True, slots=True)
class Edge:
    """One transition. `caught` names the errors of the Catch it belongs to, else it is empty."""

    source: str
    target: str
    caught: tuple[str, ...] = ()
    assigns: frozenset[str] = frozenset()
    output: Any = None


@dataclass(frozen=True, slots=True)
class Scope:
    """The states of a machine or of one branch, with the variables that enclosing states set."""

    start: str
    states: States
    known: frozenset[str] = frozenset()
    path: str = ""
    caught: bool = False
    """Whether an enclosing state has a Catch: an iteration's error is the Map's own
    (https://docs.aws.amazon.com/step-functions/latest/dg/state-map-inline.html)."""

    def where(self, state: str) -> str:
        """Name a state together with the states that it lies inside."""
        return f"{self.path}{state}"


def check_machine(
    definition: Mapping[str, Any],
    *,
    handled_errors: Collection[str] = (),
    error_classes: Collection[str] | None = None,
) -> list[Finding]:
    """Apply every rule to a definition as parsed from YAML or JSON.

    `handled_errors` are the error names whose Catch may lead to a good end (for example a plan that
    has become stale and is made again). `error_classes` are the exceptions that the functions can
    raise; a Retry or Catch on any other name is a finding. None leaves that rule out.
    """
    findings = list(_machine(definition))
    for scope in _scopes(definition):
        findings += _structure(scope)
        findings += _expressions(scope)
        findings += _variables(scope)
        findings += _inputs(scope)
        findings += _caught_ends(scope, frozenset(handled_errors))
        findings += _loops(scope)
        for name, state in scope.states.items():
            findings += _state(scope, name, state, error_classes)
    return sorted(set(findings))


def _machine(definition: Mapping[str, Any]) -> Iterator[Finding]:
    where = "machine"
    for field in sorted(definition.keys() - _MACHINE_FIELDS):
        yield Finding("unknown-field", where, f"{field} is no field of a state machine")
    if definition.get("QueryLanguage") != "JSONata":
        yield Finding("query-language", where, "QueryLanguage must be JSONata")
    if not _positive(definition.get("TimeoutSeconds")):
        yield Finding("machine-timeout", where, "a machine needs TimeoutSeconds")
    if not str(definition.get("Comment", "")).strip():
        yield Finding("comment-missing", where, "a machine needs a Comment")


def _positive(value: Any) -> bool:
    """Tell whether a number of seconds is positive; an expression counts, for it is not known."""
    if isinstance(value, str):
        return expressions.body(value) is not None
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _scopes(definition: Mapping[str, Any]) -> Iterator[Scope]:
    pending = [Scope(str(definition.get("StartAt", "")), definition.get("States", {}))]
    while pending:
        scope = pending.pop()
        yield scope
        known = _set_before(scope)
        for name, state in scope.states.items():
            inner = [*state.get("Branches", ())]
            if "ItemProcessor" in state:
                inner.append(state["ItemProcessor"])
            pending += [
                Scope(
                    str(part.get("StartAt", "")),
                    part.get("States", {}),
                    # Inner states read the outer ones' variables but cannot set them:
                    # https://docs.aws.amazon.com/step-functions/latest/dg/workflow-variables.html
                    known.get(name, frozenset()),
                    f"{scope.where(name)} > ",
                    scope.caught or bool(state.get("Catch")),
                )
                for part in inner
            ]


def edges(states: States) -> list[Edge]:
    """Return every transition of a scope, with what it assigns and hands on."""
    found: list[Edge] = []
    for name, state in states.items():
        own = frozenset(state.get("Assign", {}))
        found += [
            Edge(name, str(state[field]), (), own, state.get("Output"))
            for field in ("Next", "Default")
            if field in state
        ]
        for rule in state.get("Choices", ()):
            # A matching rule assigns its own variables; the state's are for Default alone.
            assigned = frozenset(rule.get("Assign", {}))
            found.append(Edge(name, str(rule.get("Next")), (), assigned, rule.get("Output")))
        for catcher in state.get("Catch", ()):
            caught = tuple(map(str, catcher.get("ErrorEquals", ()))) or ("?",)
            assigned = frozenset(catcher.get("Assign", {}))
            found.append(
                Edge(name, str(catcher.get("Next")), caught, assigned, catcher.get("Output"))
            )
    return found


def reachable(start: str, transitions: Collection[Edge]) -> set[str]:
    """Return the states that some way from `start` enters, `start` included."""
    seen = {start}
    pending = [start]
    while pending:
        here = pending.pop()
        for edge in transitions:
            if edge.source == here and edge.target not in seen:
                seen.add(edge.target)
                pending.append(edge.target)
    return seen


def _structure(scope: Scope) -> Iterator[Finding]:
    states = scope.states
    if scope.start not in states:
        yield Finding("start-unknown", scope.path or "machine", f"no state {scope.start!r}")
        return
    transitions = edges(states)
    for edge in transitions:
        if edge.target not in states:
            yield Finding(
                "next-unknown", scope.where(edge.source), f"no state {edge.target!r} beside it"
            )
    for name in states.keys() - reachable(scope.start, transitions):
        yield Finding("unreachable", scope.where(name), "no way leads here")
    for name, state in states.items():
        if state.get("Type") in ("Choice", "Fail", "Succeed"):
            continue
        if ("Next" in state) == (state.get("End") is True):
            yield Finding("next-missing", scope.where(name), "needs either Next or End: true")


def _state(
    scope: Scope, name: str, state: State, error_classes: Collection[str] | None
) -> Iterator[Finding]:
    where, kind = scope.where(name), str(state.get("Type"))
    yield from _fields(where, kind, state)
    yield from _wording(where, name, kind, state)
    yield from _error_names(where, state, error_classes)
    if kind == "Choice" and "Default" not in state:
        yield Finding("choice-default", where, "a Choice needs a Default")
    if kind == "Task":
        yield from _task(where, state)
        yield from _retry(where, state.get("Retry", ()))
    caught = scope.caught and not state.get("Catch")
    if kind in ("Task", "Map", "Parallel") and not caught:
        yield from _catch(where, state.get("Catch", ()))


def _fields(where: str, kind: str, state: State) -> Iterator[Finding]:
    allowed = _FIELDS.get(kind)
    if allowed is None:
        yield Finding("type-unknown", where, f"{kind!r} is no state type")
        return
    parts = [(state, allowed)]
    parts += [(part, _RETRY_FIELDS) for part in state.get("Retry", ())]
    parts += [(part, _CATCH_FIELDS) for part in state.get("Catch", ())]
    parts += [(part, _RULE_FIELDS) for part in state.get("Choices", ())]
    for part, fields in parts:
        for field in part.keys() - fields:
            if field in _JSONPATH_FIELDS:
                yield Finding("jsonpath-field", where, f"{field} belongs to JSONPath")
            else:
                yield Finding("unknown-field", where, f"{field} is no field here")


def _wording(where: str, name: str, kind: str, state: State) -> Iterator[Finding]:
    if len(name) > _MAX_NAME_LENGTH:
        yield Finding("name-too-long", where, f"{len(name)} characters, at most 80 are allowed")
    if (kind == "Choice") != name.endswith("?"):
        yield Finding("name-question", where, "the names of Choices, and only theirs, end in '?'")
    elif kind != "Choice" and _NOT_AN_ORDER.search(name):
        yield Finding("name-imperative", where, "say what to do, e.g. 'Raise the cap'")
    comment = str(state.get("Comment", "")).strip()
    if not comment:
        yield Finding("comment-missing", where, "a state needs a Comment")
        return
    if not _BY_HAND.search(comment):
        yield Finding("comment-by-hand", where, "say in the Comment what to do 'By hand: …'")
    if kind in ("Task", "Map", "Parallel") and not _UNDO.search(comment):
        yield Finding("comment-undo", where, "say in the Comment how to 'Undo: …', or why not")


def _error_names(
    where: str, state: State, error_classes: Collection[str] | None
) -> Iterator[Finding]:
    for part in (*state.get("Retry", ()), *state.get("Catch", ())):
        for error in map(str, part.get("ErrorEquals", ())):
            if error in _RESERVED_ERRORS:
                continue
            reserved = error.startswith(("States.", "Lambda."))
            if reserved or (error_classes is not None and error not in error_classes):
                yield Finding("error-unknown", where, f"nothing raises {error}")


def _task(where: str, state: State) -> Iterator[Finding]:
    timeout, heartbeat = state.get("TimeoutSeconds"), state.get("HeartbeatSeconds")
    resource = state.get("Resource")
    arguments = state.get("Arguments", {})
    if not _positive(timeout):
        yield Finding("task-timeout", where, "a Task needs TimeoutSeconds")
    if isinstance(timeout, int) and isinstance(heartbeat, int) and heartbeat >= timeout:
        yield Finding("heartbeat-too-long", where, "HeartbeatSeconds must be below TimeoutSeconds")
    if resource not in (LAMBDA_INVOKE, LAMBDA_CALLBACK):
        yield Finding("resource", where, f"{resource!r} is not {LAMBDA_INVOKE}[.waitForTaskToken]")
    if not isinstance(arguments, Mapping):
        yield Finding("arguments", where, "Arguments must spell out FunctionName and Payload")
        return
    for parameter in sorted(arguments.keys() - _INVOKE_PARAMETERS):
        yield Finding("arguments", where, f"Lambda's Invoke has no parameter {parameter}")
    if not re.fullmatch(r"\$\{\w+\}", str(arguments.get("FunctionName", ""))):
        yield Finding("function-name", where, "FunctionName must be a ${…Arn} substitution")
    if resource == LAMBDA_CALLBACK:
        if not _positive(heartbeat):
            yield Finding("callback-heartbeat", where, "a callback needs HeartbeatSeconds")
        if "$states.context.Task.Token" not in str(arguments.get("Payload", "")):
            yield Finding("callback-token", where, "Payload lacks $states.context.Task.Token")


def _retry(where: str, retriers: Collection[Mapping[str, Any]]) -> Iterator[Finding]:
    retried: set[str] = set()
    for retrier in retriers:
        errors = set(map(str, retrier.get("ErrorEquals", ())))
        retried |= errors
        for error in sorted(errors & _CATCH_ALL_ERRORS):
            yield Finding("retry-all", where, f"Retry on {error} repeats what is not transient")
        if retrier.get("JitterStrategy") != "FULL":
            yield Finding("retry-jitter", where, "Retry needs JitterStrategy: FULL")
        attempts = retrier.get("MaxAttempts")
        if not isinstance(attempts, int) or not 0 <= attempts <= _MAX_ATTEMPTS:
            yield Finding("retry-unbounded", where, "Retry needs MaxAttempts, at most 10")
    missing = TRANSIENT_LAMBDA_ERRORS - retried
    if missing:
        yield Finding("retry-missing", where, f"no Retry on {', '.join(sorted(missing))}")


def _catch(where: str, catchers: Collection[Mapping[str, Any]]) -> Iterator[Finding]:
    if not catchers:
        yield Finding("catch-missing", where, "needs a Catch")
        return
    for position, catcher in enumerate(catchers, start=1):
        errors = list(catcher.get("ErrorEquals", ()))
        last = position == len(catchers)
        if "States.ALL" in errors and (not last or len(errors) > 1):
            yield Finding("catch-all-not-last", where, "States.ALL stands alone in the last Catch")
        if last and "States.ALL" not in errors:
            yield Finding("catch-all-missing", where, "the last Catch must be on States.ALL")


def _caught_ends(scope: Scope, handled: frozenset[str]) -> Iterator[Finding]:
    """Find Catches from which some way leads to a good end."""
    transitions = edges(scope.states)
    for edge in transitions:
        if not edge.caught or set(edge.caught) <= handled:
            continue
        good = [
            name
            for name in sorted(reachable(edge.target, transitions) & scope.states.keys())
            if scope.states[name].get("Type") == "Succeed" or scope.states[name].get("End") is True
        ]
        if good:
            errors = ", ".join(edge.caught)
            yield Finding(
                "catch-succeeds", scope.where(edge.source), f"{errors} can end well in {good[0]!r}"
            )


def _loops(scope: Scope) -> Iterator[Finding]:
    """Find cycles that no counter ends.

    A counter is a variable that some state on the cycle sets while it reads it: `$checks + 1`, or
    what a function makes of its own last answer. What bounds a cycle is a Choice on it that asks
    for a counter.
    """
    transitions = [edge for edge in edges(scope.states) if edge.target in scope.states]
    ways = {name: reachable(name, transitions) for name in scope.states}
    cycles = {
        frozenset(other for other in ways[name] if name in ways[other])
        for name in scope.states
        if any(name in ways[edge.target] for edge in transitions if edge.source == name)
    }
    for cycle in cycles:
        counters = {variable for name in cycle for variable in _carried(scope.states[name])}
        bounds = {
            name
            for name in cycle
            for rule in scope.states[name].get("Choices", ())
            if _used(rule.get("Condition")).variables & counters
        }
        free = [edge for edge in transitions if not {edge.source, edge.target} & bounds]
        for edge in free:
            if {edge.source, edge.target} <= cycle and edge.source in reachable(edge.target, free):
                yield Finding(
                    "loop-unbounded",
                    scope.where(edge.source),
                    f"the way back through {edge.target!r} is not ended by a counter in a Choice",
                )


def _carried(state: State) -> set[str]:
    """Return the variables that the state sets from their own value."""
    given = _used(state.get("Arguments")).variables
    return {
        variable
        for part in (state, *state.get("Choices", ()), *state.get("Catch", ()))
        for variable, value in part.get("Assign", {}).items()
        if variable in _used(value).variables
        or (variable in given and ("result",) in {path[:1] for path in _used(value).states})
    }


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)


def _used(value: Any) -> expressions.Names:
    """Collect the names of all expressions inside a value; what does not parse has none."""
    found = expressions.Names()
    for text in _strings(value):
        expression = expressions.body(text)
        if expression is None:
            continue
        try:
            one = expressions.names(expression)
        except expressions.ExpressionError:
            continue  # reported by the rule `jsonata-syntax`
        found.variables |= one.variables
        found.functions |= one.functions
        found.states |= one.states
        found.not_functions |= one.not_functions
    return found


# Fields whose strings are names or prose, never expressions.
_PLAIN = frozenset({"Comment", "Default", "ErrorEquals", "Next", "Resource", "Type"})


def _parts(state: State) -> Iterator[tuple[str, Any]]:
    """Yield (field, value) of everything evaluated in a state, with Catch and Choices taken apart.

    Fields inside a Catch are named `Catch.Output` and so on.
    """
    for field, value in state.items():
        if field in ("Branches", "ItemProcessor", "Retry") or field in _PLAIN:
            continue
        if field in ("Catch", "Choices"):
            for part in value:
                for inner, inner_value in part.items():
                    if inner not in _PLAIN:
                        yield f"{field}.{inner}", inner_value
        else:
            yield field, value


def _expressions(scope: Scope) -> Iterator[Finding]:
    for name, state in scope.states.items():
        where = scope.where(name)
        callback = state.get("Resource") == LAMBDA_CALLBACK
        for field, value in _parts(state):
            for text in _strings(value):
                expression = expressions.body(text)
                if expression is None:
                    if _BARE_PATH.match(text) or _BARE_MARKERS.search(text):
                        yield Finding(
                            "bare-path", where, f"{field} says {text!r} without {{% %}} around it"
                        )
                    continue
                try:
                    used = expressions.names(expression)
                except expressions.ExpressionError as error:
                    yield Finding("jsonata-syntax", where, f"{field}: {error} in {text!r}")
                    continue
                yield from _functions(where, field, used)
                for path in used.states:
                    yield from _states_path(where, field, path, callback=callback)
        for rule in state.get("Choices", ()):
            if expressions.body(str(rule.get("Condition", ""))) is None:
                yield Finding("choice-condition", where, "Condition must be an expression {% … %}")


def _functions(where: str, field: str, used: expressions.Names) -> Iterator[Finding]:
    for function in sorted(used.functions - expressions.FUNCTIONS):
        yield Finding("function-unknown", where, f"{field} calls ${function}, which is not known")
    for called in sorted(used.not_functions):
        yield Finding("function-unknown", where, f"{field} calls {called}, which is no function")
    if "state" in used.variables:
        yield Finding("states-typo", where, f"{field} says $state, the variable is $states")


def _states_path(
    where: str, field: str, path: tuple[str, ...], *, callback: bool
) -> Iterator[Finding]:
    top = path[0] if path else ""
    after = field in ("Assign", "Output")
    allowed = {"input", "context"} | ({"result"} if after else set())
    if field.startswith("Catch."):
        allowed = {"input", "context", "errorOutput"}
    said = ".".join(("$states", *path))
    if top not in allowed:
        yield Finding("states-field", where, f"{field} reads {said}, which it does not have")
    if top != "context" or len(path) == 1:
        return
    known = _CONTEXT.get(path[1])
    if known is None or (len(path) > 2 and path[2] not in known):  # noqa: PLR2004 -- depth of a path
        yield Finding("states-field", where, f"{said} is not in the context object")
    if path[1] == "Task" and not (callback and field == "Arguments"):
        yield Finding("states-field", where, "only a callback's Arguments have a task token")


def _set_before(scope: Scope) -> dict[str, frozenset[str]]:
    """Return for each reachable state the variables that every way to it has set."""
    transitions = [edge for edge in edges(scope.states) if edge.target in scope.states]
    known: dict[str, frozenset[str]] = {scope.start: scope.known}
    pending = [scope.start]
    while pending:
        here = pending.pop()
        for edge in transitions:
            if edge.source != here:
                continue
            after = known[here] | edge.assigns
            before = known.get(edge.target)
            merged = after if before is None else before & after
            if merged != before:
                known[edge.target] = merged
                pending.append(edge.target)
    return known


def _variables(scope: Scope) -> Iterator[Finding]:
    known = _set_before(scope)
    anywhere = frozenset().union(*known.values(), *(e.assigns for e in edges(scope.states)))
    # `$error` is a function unless the machine sets a variable of that name.
    ignored = (expressions.FUNCTIONS - anywhere) | {"state"}
    for name, state in scope.states.items():
        if name not in known:
            continue  # reported by the rule `unreachable`
        for field, value in _parts(state):
            for variable in sorted(_used(value).variables - known[name] - ignored):
                yield Finding(
                    "variable-unset",
                    scope.where(name),
                    f"{field} reads ${variable}, which some way here has not set",
                )


def _inputs(scope: Scope) -> Iterator[Finding]:
    """Find reads of `$states.input` where the state before hands on something else.

    Without an Output a Task hands on its result and a Catch the error, so that a key of the
    machine's input is lost there; Choice, Wait and Pass without Output hand their input on.
    """
    transitions = edges(scope.states)
    for name, state in scope.states.items():
        reads = {
            path[1] if len(path) > 1 else ""
            for path in _used([value for _, value in _parts(state)]).states
            if path[:1] == ("input",)
        }
        if reads:
            for source, message in _lost(scope, name, reads, transitions, set()):
                yield Finding("input-lost", scope.where(name), f"after {source!r}: {message}")


def _lost(
    scope: Scope, name: str, keys: set[str], transitions: Collection[Edge], seen: set[str]
) -> Iterator[tuple[str, str]]:
    seen.add(name)
    for edge in transitions:
        if edge.target != name or edge.source not in scope.states:
            continue
        kind = scope.states[edge.source].get("Type")
        if isinstance(edge.output, Mapping):
            missing = keys - edge.output.keys() - {""}
            if missing:
                yield edge.source, f"its Output has no {', '.join(sorted(missing))}"
        elif edge.output is None and edge.caught:
            if keys - {"Error", "Cause"}:
                yield edge.source, "its Catch hands on Error and Cause only"
        elif edge.output is None and kind in ("Task", "Map", "Parallel"):
            yield edge.source, "it hands on its result, for it has no Output"
        elif edge.output is None and edge.source not in seen:
            yield from _lost(scope, edge.source, keys, transitions, seen)


def substitutions(definition: Mapping[str, Any]) -> set[str]:
    """Return the names of the `${…}` placeholders that the definition expects to be filled."""
    return {name for text in _strings(definition) for name in expressions.PLACEHOLDER.findall(text)}
