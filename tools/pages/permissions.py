"""The page of permissions, for whoever has to allow this stack: what each role may do, and why."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tools.checks import comments, iam, iam_rules, template
from tools.checks.template import Template, as_list, resources
from tools.pages import markdown
from tools.pages.markdown import anchor, code, table

type Json = Mapping[str, Any]
type Statements = Sequence[tuple[str, Json]]
"""Why, and a statement whose references stand in angle brackets."""

_INTRO = (
    "Each function and each state machine has a role of its own, with what it needs and no more. "
    "`make contract` refuses a wildcard among actions, a star for resources where IAM knows more, "
    "and a change of production that is not held to what its owner has opted in; `make scenarios` "
    "refuses an action that no story uses. Actions in bold change production. In ARNs, REGION, "
    "ACCOUNT and STACK are this stack's; a name without `arn:` is a resource or parameter of it."
)
_OTHERS = "All others read, and write to the stack's own table, buckets, queues and machines alone."
_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SHORT = (
    ("<AWS::Partition>", "aws"),
    ("<AWS::Region>", "REGION"),
    ("<AWS::AccountId>", "ACCOUNT"),
    ("<AWS::StackName>", "STACK"),
)
_REFERENCE = re.compile(r"<(\w+)(?:\.\w+)?>")


def permissions_page(text: str, sam: Template, root: Path) -> str:
    """Return the page. `text` is template.yaml, `sam` what `template.load` reads from it."""
    stack = _Stack(text, sam, template.translate(sam, root))
    functions = resources(sam, "AWS::Serverless::Function")
    machines = resources(sam, "AWS::Serverless::StateMachine")
    return markdown.page(
        [
            markdown.generated("template.yaml"),
            "# Permissions",
            _INTRO,
            "## What changes production",
            _production(stack, functions),
            _OTHERS,
            "## Shared by several functions",
            *chain.from_iterable(map(stack.shared, stack.policies)),
            "## Functions",
            *chain.from_iterable(_function(stack, *one) for one in functions.items()),
            "## State machines",
            "Each may invoke its own steps, and write its log and traces; none touches production.",
            _machines(machines),
            *_roles(stack, resources(sam, "AWS::IAM::Role")),
        ]
    )


class _Stack:
    """A template, with the comments of its source beside what SAM makes of it."""

    def __init__(self, text: str, sam: Template, deployed: Template) -> None:
        self.deployed = deployed
        self.parameters = sam["Parameters"]
        self.policies = resources(sam, "AWS::IAM::ManagedPolicy")
        self._conditions = {
            name: one["Condition"] for name, one in sam["Resources"].items() if "Condition" in one
        }
        items = [*comments.items(text)]
        self._comments = {
            (str(item.path[1]), item.scalar): item.comment
            for item in items
            if item.path[0] == "Resources" and item.path[-1] == "Sid"
        }
        self.addresses = {
            str(item.path[1]): item.comment
            for item in items
            if item.path[0] == "Resources" and item.path[-1] == "FunctionUrlConfig"
        }
        """Functions that have an address of their own, with what is said about it."""

    def shared(self, name: str) -> Iterator[str]:
        """Say what a managed policy allows, and to whom."""
        policy = self.policies[name]
        yield f"### {name}"
        only = self._conditions.get(name)
        yield f"{policy['Description']}." + (f" Only where {code(only)}." if only else "")
        yield self.table(self.statements(name, policy["PolicyDocument"]))

    def of(self, function: str) -> tuple[list[str], Statements]:
        """Return the names of a function's shared policies, and the statements of its own."""
        role = self.deployed["Resources"][f"{function}Role"]["Properties"]
        arns = role["ManagedPolicyArns"]
        names = [one["Ref"] for one in arns if isinstance(one, Mapping) and "Ref" in one]
        names += [
            name
            for name, policy in self.policies.items()
            if {"Ref": f"{function}Role"} in policy.get("Roles", ())
        ]
        own = [
            pair
            for policy in role.get("Policies", ())
            for pair in self.statements(function, policy["PolicyDocument"])
        ]
        return names, own

    def of_aws(self, function: str) -> list[str]:
        """Return the names of AWS's own policies that a function has."""
        arns = self.deployed["Resources"][f"{function}Role"]["Properties"]["ManagedPolicyArns"]
        said = [_said(one) for one in arns if not (isinstance(one, Mapping) and "Ref" in one)]
        return [one.rpartition("/")[2] for one in said]

    def every(self, function: str) -> Statements:
        """Return all statements of a function."""
        names, own = self.of(function)
        return [
            *own,
            *(
                pair
                for name in names
                for pair in self.statements(name, self.policies[name]["PolicyDocument"])
            ),
        ]

    def statements(self, owner: str, document: Json) -> Statements:
        """Pair the statements of a policy, references verbatim, with what they are for."""
        found = []
        for raw in as_list(document["Statement"]):
            for one in as_list(iam.resolve([raw], self.deployed, iam_rules.Verbatim())):
                sid = str(one.get("Sid", ""))
                words = _WORDS.sub(" ", sid).capitalize() or "Keep what fails"
                said = self._comments.get((owner, sid), "")
                found.append((f"{words}. {said}".strip(), one))
        return found

    def table(self, statements: Statements) -> str:
        """Show statements."""
        return table(
            ("What for", "Actions", "On", "Held to"),
            (
                (why, self.actions(one), "<br>".join(self.on(one)), "<br>".join(_held(one)))
                for why, one in statements
            ),
        )

    def actions(self, statement: Json) -> str:
        """Name the actions, those in bold that change production."""
        return " ".join(
            f"**{code(action)}**" if self.changes(action, statement) else code(action)
            for action in map(str, as_list(statement["Action"]))
        )

    def changes(self, action: str, statement: Json) -> bool:
        """Whether an action of a statement changes production."""
        return iam_rules.changes_production(action, statement, self.deployed)

    def on(self, statement: Json) -> Iterator[str]:
        """Name the resources of a statement."""
        for resource in map(str, as_list(statement["Resource"])):
            if resource == "*":
                yield code("*")
                continue
            whole = _REFERENCE.fullmatch(resource)
            is_parameter = whole is not None and whole[1] in self.parameters
            yield code(_plain(resource)) + (" (parameter)" if is_parameter else "")


def _plain(text: str) -> str:
    for long, short in _SHORT:
        text = text.replace(long, short)
    return _REFERENCE.sub(r"\1", text)


def _held(statement: Json) -> Iterator[str]:
    for operator, keys in statement.get("Condition", {}).items():
        verb = "like" if "Like" in operator else "is"
        for key, wanted in keys.items():
            values = " or ".join(code(_plain(str(value))) for value in as_list(wanted))
            if key == iam_rules.OPT_IN_TAG:
                yield f"tag {code(f'runbook-automation={wanted}')}"
            else:
                yield f"{code(key)} {verb} {values}"


def _said(value: Any) -> str:
    """Return a template's value in words."""
    return _plain(str(iam.resolve(value, {"Resources": {}}, iam_rules.Verbatim())))


def _production(stack: _Stack, functions: Mapping[str, Json]) -> str:
    rows = []
    for name, properties in functions.items():
        for _, statement in stack.every(name):
            changes = [
                action
                for action in map(str, as_list(statement["Action"]))
                if stack.changes(action, statement)
            ]
            if changes:
                title = _said(properties["FunctionName"])
                held = [*_held(statement)] or ["named in the parameter"]
                rows.append(
                    (
                        f"[{title}](#{anchor(title)})",
                        " ".join(map(code, changes)),
                        "<br>".join(stack.on(statement)),
                        "<br>".join(held),
                    )
                )
    return table(("Function", "May", "On", "Held to"), rows)


def _function(stack: _Stack, name: str, properties: Json) -> Iterator[str]:
    shared, own = stack.of(name)
    yield f"### {_said(properties['FunctionName'])}"
    yield f"{properties['Description']}."
    policies = [f"[{one}](#{anchor(one)})" for one in shared]
    yield f"Has {', '.join([*policies, *map(code, stack.of_aws(name))])}."
    if name in stack.addresses:
        kind = properties["FunctionUrlConfig"]["AuthType"]
        yield f"Has a function URL of the kind {code(kind)}. {stack.addresses[name]}"
    yield stack.table(own) if own else ""


def _machines(machines: Mapping[str, Json]) -> str:
    rows = []
    for properties in machines.values():
        invokes = [
            _said(one)
            for policy in properties["Policies"]
            for statement in policy["Statement"]
            if "lambda:InvokeFunction" in as_list(statement["Action"])
            for one in as_list(statement["Resource"])
        ]
        rows.append((code(_said(properties["Name"])), " ".join(map(code, invokes))))
    return table(("Machine", "Invokes"), rows)


def _roles(stack: _Stack, roles: Mapping[str, Json]) -> Iterator[str]:
    """Say what roles allow that are neither a function's nor a machine's."""
    if roles:
        yield "## Other roles"
    for name, properties in roles.items():
        trusted = as_list(properties["AssumeRolePolicyDocument"]["Statement"])
        who = [_said(one) for each in trusted for one in as_list(each["Principal"]["Service"])]
        yield f"### {name}"
        yield f"Assumed by {', '.join(map(code, who))}."
        yield stack.table(
            [
                pair
                for policy in properties.get("Policies", ())
                for pair in stack.statements(name, policy["PolicyDocument"])
            ]
        )
