"""The page of a runbook, for the person who is woken by it: a contract and its machine in words."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from oncall.endings import Ending, outcome
from tools.checks import comments, contracts
from tools.pages import markdown
from tools.pages.markdown import anchor, bullets, code, instructions, shell, table

type Json = Mapping[str, Any]

_STACK = "`aws cloudformation describe-stacks --stack-name STACK --query Stacks[0].Outputs`"
# What a command's words in capitals stand for, and where they are found.
PLACEHOLDERS = {
    "ALARM": "the alarm's name",
    "ALARM_ARN": "the alarm's ARN",
    "ALIAS": "the function's alias",
    "ARCHIVE_BUCKET": f"the output `ArchiveBucket` of {_STACK}",
    "BEFORE": "the value before, which stands in the thread",
    "BUCKET": "the bucket of the health check's signal, in the service's file",
    "CHANGES": "a file that DELETEs both record sets as they are and CREATEs them as wanted",
    "CLUSTER": "the ECS cluster's name",
    "CLUSTER_ARN": "ARN of the Aurora cluster in the Region that traffic goes to",
    "DLQ_ARN": "the dead-letter queue's ARN",
    "ECS_SERVICE": "the ECS service's name",
    "ECS_SERVICE_ARN": "the ECS service's ARN",
    "END": "a time in UTC, such as 2026-11-27T03:30:00Z",
    "ENDPOINT": "one of the ARC cluster's five endpoints, in the service's file",
    "ENDPOINT_REGION": "that endpoint's Region",
    "FILE": "a file that the command above lists",
    "FUNCTION": "the function's name",
    "FUNCTION_ARN": "the function's ARN",
    "GLOBAL_CLUSTER": "the Aurora global cluster's identifier",
    "HANDLE": "the `TaskHandle` that the command above lists",
    "HEALTH_CHECK": "a health check's id, in the service's file",
    "INCIDENT": "the incident's id, the execution's name; `./runbook list` has it",
    "KEY": "the object's key",
    "MACHINE_ARN": f"the state machine's ARN, an output of {_STACK}",
    "MAPPING_ARN": "the event source mapping's ARN",
    "MESSAGES": "how many messages may wait before producers are told to slow down",
    "METRIC": "the metric that the health check's alarm watches",
    "N": "the number that you want",
    "NAME": "the service's record",
    "NAMESPACE": "the namespace of that metric",
    "NAME_SERVER": "one of the name servers",
    "PARAMETER": "the SSM parameter's name",
    "PRIMARY_CONTROL_ARN": "ARN of the primary's routing control",
    "PRIMARY_REGION": "the primary Region",
    "PUBLIC_URL": "the service's public URL",
    "QUEUE": "the queue's name",
    "QUEUE_ARN": "the queue's ARN",
    "SERVICE": "the service, by its file's name",
    "SOURCE_ARN": "ARN of the queue that the letters come from",
    "STACK": "the stack's name, `runbooks` unless it was deployed by another",
    "STANDBY_CONTROL_ARN": "ARN of the standby's routing control",
    "STANDBY_REGION": "the standby Region",
    "START": "a time in UTC, such as 2026-11-27T03:00:00Z",
    "URL": "the address of the queue or, of a service, what its probe asks for",
    "UUID": "the event source mapping's UUID",
    "VALUE": "the value that the alarm takes for away or for home, in the service's file",
    "YOUR_ARN": "your own ARN, as `aws sts get-caller-identity` gives it",
    "ZONE": "the hosted zone's id",
    "ZONE_NAME": "the hosted zone's name",
}
_CAPITALS = re.compile(r"\b[A-Z][A-Z0-9_]*\b")
# Words in capitals that are to stay.
_NOT_YOURS = re.compile(r"AWS/\w+|RUNNING|NS (?=ZONE)")
_AT_NIGHT = ("What it means", "Why it calls you", "Stop it", "By hand", "Escalate")
_MODES = {
    "observe": "says what it would do and changes nothing",
    "ask": "asks before it changes anything",
    "auto": "acts within its limits, and asks before what is listed below",
}
_UNITS = {
    "_hours": "{} h",
    "_letters": "{} letters",
    "_looks": "{} looks",
    "_minutes": "{} min",
    "_periods": "{} periods",
    "_rate": "{} letters a second",
    "_factor": "{} times",
    "_concurrency": "{} executions",
    "headroom": "{} times",
    "plans": "{} plans",
}


def runbook_page(text: str, contract: Json, machine: Json, schema: Json) -> str:
    """Return the page of a runbook. `text` is its contract's file; the picture lies beside it."""
    id_, document = contract["id"], contract["document"]
    return markdown.page(
        [
            markdown.generated(f"runbooks/{id_}.yaml", f"statemachines/{id_}.asl.yaml"),
            f"# {contract['title']}",
            f"Runbook {code(id_)} · of {contract['owner']}",
            contract["summary"],
            " · ".join(f"[{part}](#{anchor(part)})" for part in _AT_NIGHT),
            "## What it means",
            document["means"],
            f"**Who is hurt.** {document['hurt']}",
            "## What it will do",
            document["will_do"],
            bullets(document["never"]),
            "## Why it calls you",
            *_calls(document),
            "## Stop it",
            document["stop_it"],
            *_stop(id_),
            "## Decide without Slack",
            *_decide(contract),
            "## Start it",
            *_start(contract),
            "## Modes and approval",
            *_modes(text, contract),
            "## Let it act",
            instructions([*document["opt_in"], "Arm an alarm:", _arm(id_)]),
            _alarm(contract["trigger"]),
            "## Steps",
            f"![The states of a run that goes well]({id_}.svg)",
            _steps(contract, machine),
            "Between them:",
            _between(machine),
            "Its ends:",
            _ends(machine),
            "## By hand",
            "What stands in CAPITALS is yours to replace.",
            *_by_hand(contract, machine),
            _legend(contract),
            "## How it knows that it helped",
            contract["verification"]["better"],
            "It looks at:",
            bullets(contract["verification"]["metrics"]),
            _numbers("verification", text, contract, schema),
            "## Limits",
            "A period is the stack's `PeriodSeconds`, a minute unless it is set otherwise.",
            _numbers("limits", text, contract, schema),
            "## Escalate",
            document["escalate"],
            "## More",
            bullets([*_more(contract)]),
        ]
    )


def _calls(document: Json) -> Iterator[str]:
    rows = []
    for call in document["stops_and_calls_you"]:
        error, _, what = call.partition(": ")
        ends = code(outcome(Ending(error, ""), "auto"))
        rows.append((code(error), ends, f"{what[0].upper()}{what[1:]}"))
    yield table(("It stops with", "Outcome", "What has happened, and what you do"), rows)
    yield (
        "Any other error is `failed`: a step did not work. The thread says which and what is left; "
        "go on [by hand](#by-hand)."
    )


def _stop(id_: str) -> Iterator[str]:
    switch = f"aws ssm put-parameter --overwrite --name /STACK/kill-switch/{id_} --value"
    yield "This runbook alone, and let it act again:"
    yield shell([f"{switch} stop", f"{switch} run"])


def _decide(contract: Json) -> Iterator[str]:
    yield "Whoever is among the stack's `Approvers` may decide from a terminal as well:"
    yield shell(
        f"./runbook {verb} INCIDENT" for verb in ("approve", "reject", "abort", "takeover", "watch")
    )
    yield f"Or by the AWS CLI alone, as [{_asks(contract)}](#{anchor(_asks(contract))}) shows."


def _asks(contract: Json) -> str:
    """Return the name of the first step that is answered by a decision."""
    return next(str(s["state"]) for s in contract["steps"] if "receive-decision" in s["by_hand"])


def _arm(id_: str) -> str:
    return f"aws cloudwatch tag-resource --resource-arn ALARM_ARN --tags Key=runbook,Value={id_}"


def _alarm(trigger: Json) -> str:
    names = " or ".join(map(code, trigger["metrics"]))
    return (
        f"The alarm is one on {names} in {code(trigger['namespace'])}; its dimension "
        f"{code(trigger['dimension'])} names the target, else its tag `runbook:target` has to."
    )


def _start(contract: Json) -> Iterator[str]:
    id_, key = contract["id"], contract["trigger"]["input"]
    example = contract["inputs"][key]["examples"][0]
    given = json.dumps({key: example})
    console = f"In the console: Step Functions, `STACK-{id_}`, Start execution with `{given}`"
    ways = [
        f"An alarm with the tag `runbook={id_}` starts it.",
        f"{console}; an alarm's event, pasted whole, will do as well.",
        "In a terminal, where `--mode observe` changes nothing:",
    ]
    yield bullets(ways)
    yield shell(
        [
            f"./runbook run {id_} {key}={example}",
            f"aws stepfunctions start-execution --state-machine-arn MACHINE_ARN --input '{given}'",
        ]
    )
    rows = [
        (code(name), schema["description"], code(str(schema["examples"][0])))
        for name, schema in contract["inputs"].items()
    ]
    rows += [
        ("`mode`", "How far it may go.", "`observe`"),
        ("`reason`", "Why you start it; stands in the thread.", "`deploy went wrong`"),
    ]
    yield table(("Input", "What it is", "Example"), rows)


def _modes(text: str, contract: Json) -> Iterator[str]:
    modes, above = contract["modes"], comments.above(text)
    yield bullets(
        f"Started by {who}: {code(modes[kind])}, it {_MODES[modes[kind]]}."
        + (f" {said}" if (said := above.get(("modes", kind))) else "")
        for kind, who in (("alarm", "an alarm"), ("hand", "hand"))
    )
    rows = [
        (code(action), meaning, "2" if action in contract["approval"]["two_people"] else "1")
        for action, meaning in _asked(above.get(("modes", "always_ask"), ""), modes["always_ask"])
    ]
    if rows:
        yield "It asks in every mode before:"
        yield table(("Plan", "What it does", "People"), rows)
    yield above.get(("approval", "two_people"), "")
    yield "The alarm's tag `runbook:mode` or the input `mode` say otherwise."


def _asked(comment: str, actions: list[str]) -> Iterator[tuple[str, str]]:
    """Read `action: what it does; …` out of a comment. Raises ValueError for what it leaves out."""
    said = {}
    for part in comment.rstrip(".").split("; "):
        action, colon, meaning = part.partition(": ")
        if colon:
            said[action] = f"{meaning[0].upper()}{meaning[1:]}."
    missing = set(actions) - said.keys()
    if missing:
        raise ValueError(f"the comment above always_ask says nothing about {sorted(missing)}")
    for action in actions:
        yield action, said[action]


def _steps(contract: Json, machine: Json) -> str:
    steps = {step["state"]: step for step in contract["steps"]}
    rows = []
    for name in _states(machine["States"], "Task"):
        step, how = steps[name], f"[how](#{anchor(name)})"
        rows.append(
            (
                name,
                step["does"],
                "**yes**" if step["changes"] else "no",
                how if _has_section(step) else step["by_hand"],
                how if "undo" in step else step.get("no_undo_because", "none needed"),
            )
        )
    return table(("State", "Does", "Changes", "By hand", "Undo"), rows)


def _states(states: Json, *kinds: str) -> dict[str, Json]:
    """Return the states of some types by name, those inside Map and Parallel where they stand."""
    found: dict[str, Json] = {}
    for name, state in states.items():
        if state["Type"] in kinds:
            found[name] = state
        for part in (*state.get("Branches", ()), *filter(None, [state.get("ItemProcessor")])):
            found |= _states(part["States"], *kinds)
    return found


def _between(machine: Json) -> str:
    found = _states(machine["States"], "Choice", "Map", "Parallel", "Pass", "Wait")
    rows = [(name, one["Comment"]) for name, one in found.items() if not one.get("End")]
    return table(("State", "Says"), rows)


def _ends(machine: Json) -> str:
    found = _states(machine["States"], "Fail", "Pass", "Succeed")
    rows = [
        (name, one["Comment"])
        for name, one in found.items()
        if one["Type"] != "Pass" or one.get("End")
    ]
    return table(("State", "Means"), rows)


def _has_section(step: Json) -> bool:
    """Whether a step has commands to copy; what else it says fits into the table."""
    return "undo" in step or bool(_commands(step["by_hand"]))


def _commands(text: str) -> list[str]:
    return [line for line in text.splitlines() if markdown.is_command(line)]


def _by_hand(contract: Json, machine: Json) -> Iterator[str]:
    steps = {step["state"]: step for step in contract["steps"]}
    before: dict[tuple[str, str], str] = {}
    for name in _states(machine["States"], "Task"):
        step = steps[name]
        if not _has_section(step):
            continue
        yield f"### {name}"
        same = before.setdefault((step["by_hand"], step.get("undo", "")), name)
        if same != name:
            yield f"As for [{same}](#{anchor(same)})."
            continue
        yield instructions(step["by_hand"].splitlines())
        if "undo" in step:
            yield "Undo:"
            yield instructions(step["undo"].splitlines())


def placeholders(contract: Json) -> list[str]:
    """Return the words that whoever runs the commands of a contract's steps has to replace."""
    texts = [step.get(part, "") for step in contract["steps"] for part in ("by_hand", "undo")]
    texts += contract["document"]["opt_in"]
    found = {"ALARM_ARN", "INCIDENT", "MACHINE_ARN", "STACK"}  # the page's own
    for command in (command for text in texts for command in _commands(text)):
        found |= set(_CAPITALS.findall(_NOT_YOURS.sub("", command)))
    return sorted(found)


def _legend(contract: Json) -> str:
    unknown = [word for word in placeholders(contract) if word not in PLACEHOLDERS]
    if unknown:
        raise ValueError(f"nothing says what stands for {', '.join(unknown)}: see PLACEHOLDERS")
    rows = [(code(word), PLACEHOLDERS[word]) for word in placeholders(contract)]
    return table(("Word", "Stands for"), rows)


def _numbers(part: str, text: str, contract: Json, schema: Json) -> str:
    meanings = contracts.meanings(text, contract, schema)
    rows = [
        (code(name), _value(name, value), meanings[name])
        for name, value in contract[part].items()
        if isinstance(value, int | float)
    ]
    return table(("Number", "Value", "Meaning"), rows)


def _value(name: str, value: float) -> str:
    if name.endswith("_seconds"):
        for unit, seconds in (("h", 3600), ("min", 60)):
            if value % seconds == 0:
                return f"{value // seconds} {unit}"
        return f"{value} s"
    for ending, form in _UNITS.items():
        if name.endswith(ending):
            return form.format(value)
    return f"{value:.0%}" if 0 < value < 1 else str(value)


def _more(contract: Json) -> Iterator[str]:
    for path in contract["document"].get("more", ()):
        name = path.removeprefix("docs/")
        yield f"[{name.removesuffix('.md')}](../{name})"
    yield "[What each of its functions may do](../permissions.md)"
    yield "[How runs end, and what becomes of their changes](../architecture.md#how-a-run-ends)"
