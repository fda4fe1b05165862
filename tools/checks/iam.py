"""Evaluate IAM policies as AWS does, as far as this project's policies need it.

The rules are those of
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html for one
identity-based policy set: an explicit Deny wins, else an Allow is needed.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from tools.checks.template import Template, as_list, resources

type Document = Mapping[str, Any]
type Names = Mapping[str, str]

_PSEUDO = {
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::Region": "us-east-1",
    "AWS::StackName": "runbooks",
    "AWS::URLSuffix": "amazonaws.com",
}
_NO_VALUE = {"Ref": "AWS::NoValue"}
# Type -> (property that may name it, ARN below `arn:partition:`, what Ref gives: "name" or "arn").
_PHYSICAL: Mapping[str, tuple[str, str, str]] = {
    "AWS::DynamoDB::Table": ("TableName", "dynamodb:{region}:{account}:table/{name}", "name"),
    "AWS::Events::Rule": ("Name", "events:{region}:{account}:rule/{name}", "name"),
    "AWS::IAM::Role": ("RoleName", "iam::{account}:role/{name}", "name"),
    "AWS::KMS::Key": ("", "kms:{region}:{account}:key/{name}", "name"),
    "AWS::Lambda::Function": ("FunctionName", "lambda:{region}:{account}:function:{name}", "name"),
    "AWS::Logs::LogGroup": ("LogGroupName", "logs:{region}:{account}:log-group:{name}:*", "name"),
    "AWS::S3::Bucket": ("BucketName", "s3:::{name}", "name"),
    "AWS::SecretsManager::Secret": (
        "Name",
        "secretsmanager:{region}:{account}:secret:{name}",
        "arn",
    ),
    "AWS::SNS::Topic": ("TopicName", "sns:{region}:{account}:{name}", "arn"),
    "AWS::SQS::Queue": ("QueueName", "sqs:{region}:{account}:{name}", "url"),
    "AWS::SSM::Parameter": ("Name", "ssm:{region}:{account}:parameter/{name}", "name"),
    "AWS::StepFunctions::StateMachine": (
        "StateMachineName",
        "states:{region}:{account}:stateMachine:{name}",
        "arn",
    ),
}
# AWS's own policies that SAM attaches: https://docs.aws.amazon.com/aws-managed-policy/latest/
AWS_MANAGED: Mapping[str, Document] = {
    "service-role/AWSLambdaBasicExecutionRole": {
        "Statement": {
            "Effect": "Allow",
            "Action": ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
            "Resource": "*",
        }
    },
    "service-role/AWSLambdaDynamoDBExecutionRole": {
        "Statement": {
            "Effect": "Allow",
            "Action": [
                "dynamodb:DescribeStream",
                "dynamodb:GetRecords",
                "dynamodb:GetShardIterator",
                "dynamodb:ListStreams",
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:PutLogEvents",
            ],
            "Resource": "*",
        }
    },
    "AWSXrayWriteOnlyAccess": {
        "Statement": {
            "Effect": "Allow",
            "Action": [
                "xray:GetSamplingRules",
                "xray:GetSamplingStatisticSummaries",
                "xray:GetSamplingTargets",
                "xray:PutTelemetryRecords",
                "xray:PutTraceSegments",
            ],
            "Resource": "*",
        }
    },
}


class UnresolvedError(ValueError):
    """A policy holds an intrinsic function that this module does not know."""


class UnknownConditionError(ValueError):
    """A policy holds a condition operator that this module does not know."""


def simulate(
    policy: Document | Iterable[Document],
    action: str,
    resource: str,
    context: Mapping[str, Any] | None = None,
) -> bool:
    """Tell whether the policies allow `action` on `resource` (an ARN or `*`).

    `context` holds condition keys, e.g. `{"aws:ResourceTag/team": "a"}`; a key that is missing
    fails its condition, as it does in AWS, unless the operator ends in IfExists.
    Raises UnknownConditionError.
    """
    documents = [policy] if isinstance(policy, Mapping) else policy
    keys = {key.lower(): value for key, value in (context or {}).items()}
    effects = {
        statement["Effect"]
        for document in documents
        for statement in as_list(document["Statement"])
        if _applies(statement, action, resource, keys)
    }
    return "Allow" in effects and "Deny" not in effects


def _applies(statement: Document, action: str, resource: str, context: Mapping[str, Any]) -> bool:
    if "NotAction" in statement:
        named = not _any(_action_matches, statement["NotAction"], action)
    else:
        named = _any(_action_matches, statement["Action"], action)
    if "NotResource" in statement:
        covered = not _any(arn_matches, statement["NotResource"], resource)
    else:
        covered = _any(arn_matches, statement["Resource"], resource)
    return (
        named
        and covered
        and all(
            _condition(operator, key, as_list(wanted), context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def _any(matches: Callable[[str, str], bool], patterns: Any, value: str) -> bool:
    return any(matches(pattern, value) for pattern in as_list(patterns))


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """`*` is any text and `?` one character; everything else stands for itself."""
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in text)
    return re.compile("".join(parts), re.DOTALL)


def _like(pattern: str, value: str) -> bool:
    return _pattern(pattern).fullmatch(value) is not None


def _action_matches(pattern: str, action: str) -> bool:
    return _like(pattern.lower(), action.lower())


def arn_matches(pattern: str, arn: str) -> bool:
    """Compare ARNs part by part: a wildcard does not reach over a colon before the last part."""
    if pattern == "*":
        return True
    wanted, got = pattern.split(":", 5), arn.split(":", 5)
    return len(wanted) == len(got) and all(map(_like, wanted, got))


_OPERATORS: Mapping[str, Callable[[str, str], bool]] = {
    "ArnEquals": arn_matches,
    "ArnLike": arn_matches,
    "Bool": lambda wanted, got: wanted.lower() == got.lower(),
    "StringEquals": lambda wanted, got: wanted == got,
    "StringEqualsIgnoreCase": lambda wanted, got: wanted.lower() == got.lower(),
    "StringLike": _like,
}
_NEGATED = {
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "StringNotEquals": "StringEquals",
    "StringNotLike": "StringLike",
}


def _condition(operator: str, key: str, wanted: Iterable[Any], context: Mapping[str, Any]) -> bool:
    for_all = operator.startswith("ForAllValues:")
    base = operator.removeprefix("ForAllValues:").removeprefix("ForAnyValue:")
    values = [_text(value) for value in as_list(context.get(key.lower(), []))]
    if base == "Null":
        return _text(next(iter(wanted))) == _text(not values)
    optional, base = base.endswith("IfExists"), base.removesuffix("IfExists")
    negated = base in _NEGATED
    compare = _OPERATORS.get(_NEGATED.get(base, base))
    if compare is None:
        raise UnknownConditionError(f"condition operator {operator} of {key} is not known")
    if not values:
        return optional or negated or for_all
    patterns = [_text(value) for value in wanted]
    held = [any(compare(pattern, value) for pattern in patterns) != negated for value in values]
    return all(held) if for_all else any(held)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def role_policies(
    template: Template, names: Names | None = None, *, managed: bool = True
) -> dict[str, list[Document]]:
    """Return the policy documents of each role by its logical id, intrinsic functions resolved.

    `names` gives what was really deployed: a logical id, parameter or pseudo parameter -> what
    `Ref` of it is, and `<logical id>.<attribute>` -> what GetAtt is. What it leaves out gets its
    default, or a pattern like the names that CloudFormation makes up. Both branches of an `Fn::If`
    count. `managed` adds what AWS_MANAGED knows. Raises UnresolvedError.
    """
    names = {} if names is None else names
    own = resources(template, "AWS::IAM::ManagedPolicy")
    found: dict[str, list[Document]] = {}
    for role, properties in resources(template, "AWS::IAM::Role").items():
        found[role] = [policy["PolicyDocument"] for policy in properties.get("Policies", ())]
        for arn in properties.get("ManagedPolicyArns", ()):
            if isinstance(arn, Mapping) and arn.get("Ref") in own:
                found[role].append(own[arn["Ref"]]["PolicyDocument"])
            elif managed:
                found[role] += [
                    document
                    for name, document in AWS_MANAGED.items()
                    if str(resolve(arn, template, names)).endswith(f":policy/{name}")
                ]
    for properties in (*resources(template, "AWS::IAM::Policy").values(), *own.values()):
        for reference in properties.get("Roles", ()):
            if isinstance(reference, Mapping) and reference.get("Ref") in found:
                found[reference["Ref"]].append(properties["PolicyDocument"])
    return {
        role: [_document(document, template, names) for document in documents]
        for role, documents in found.items()
    }


def _document(document: Document, template: Template, names: Names) -> Document:
    statements = [
        statement for one in as_list(document["Statement"]) for statement in _branches(one)
    ]
    return {
        "Version": "2012-10-17",
        "Statement": [resolve(statement, template, names) for statement in statements],
    }


def _branches(value: Any) -> Iterator[Any]:
    """Yield every value that a conditional one can take."""
    if isinstance(value, Mapping) and "Fn::If" in value:
        for branch in value["Fn::If"][1:]:
            yield from _branches(branch)
    elif value != _NO_VALUE:
        yield value


def resolve(value: Any, template: Template, names: Names) -> Any:
    """Replace intrinsic functions by strings, and an `Fn::If` by the list of its branches.

    Raises UnresolvedError for a function that is not known.
    """
    if isinstance(value, list):
        return [resolve(branch, template, names) for item in value for branch in _branches(item)]
    if not isinstance(value, Mapping):
        return value
    if len(value) == 1:
        [(name, argument)] = value.items()
        if name == "Ref" or name.startswith("Fn::"):
            return _intrinsic(name, argument, template, names)
    return {key: resolve(item, template, names) for key, item in value.items()}


def _intrinsic(name: str, argument: Any, template: Template, names: Names) -> Any:
    match name:
        case "Ref":
            return _ref(argument, template, names)
        case "Fn::GetAtt":
            target = argument.split(".", 1) if isinstance(argument, str) else argument
            return _attribute(target[0], target[1], template, names)
        case "Fn::Sub":
            return _sub(argument, template, names)
        case "Fn::Join":
            glue, parts = argument
            return glue.join(str(resolve(part, template, names)) for part in parts)
        case "Fn::Split":
            glue, text = argument
            return str(resolve(text, template, names)).split(glue)
        case "Fn::If":
            return [resolve(one, template, names) for one in _branches({name: argument})]
        case _:
            raise UnresolvedError(f"{name} in a policy is not known")


def _sub(text: Any, template: Template, names: Names) -> str:
    body, own = text if isinstance(text, list) else (text, {})

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        if name in own:
            return str(resolve(own[name], template, names))
        logical, dot, attribute = name.partition(".")
        if dot:
            return _attribute(logical, attribute, template, names)
        return _ref(name, template, names)

    # `${!name}` is the escape for a literal `${name}`.
    return re.sub(r"\$\{([\w:.]+)\}", replaced, body).replace("${!", "${")


def _ref(name: str, template: Template, names: Names) -> str:
    if name in names:
        return names[name]
    if name in _PSEUDO:
        return _PSEUDO[name]
    parameter = template.get("Parameters", {}).get(name)
    if parameter is not None:
        return str(parameter.get("Default", "")) or f"{name}-value"
    kind, physical = _physical(name, template, names)
    if kind == "arn":
        return _attribute(name, "Arn", template, names)
    if kind == "url":
        return f"https://sqs.example.com/{_ref('AWS::AccountId', template, names)}/{physical}"
    return physical


def _physical(name: str, template: Template, names: Names) -> tuple[str, str]:
    resource = template["Resources"].get(name)
    if resource is None or resource["Type"] not in _PHYSICAL:
        raise UnresolvedError(f"{name} is no parameter, and no resource of a type that is known")
    named_by, _, reference = _PHYSICAL[resource["Type"]]
    given = resource.get("Properties", {}).get(named_by)
    if given is not None:
        return reference, str(resolve(given, template, names)).lstrip("/")
    if resource["Type"] == "AWS::S3::Bucket":
        return reference, f"*{name.lower()}*"
    return reference, "*" if resource["Type"] == "AWS::KMS::Key" else f"*{name}*"


def _attribute(name: str, attribute: str, template: Template, names: Names) -> str:
    if f"{name}.{attribute}" in names:
        return names[f"{name}.{attribute}"]
    reference, physical = _physical(name, template, names)
    _, pattern, _ = _PHYSICAL[template["Resources"][name]["Type"]]
    if attribute in ("QueueName", "TopicName", "Name"):
        return physical
    if attribute not in ("Arn", "StreamArn", "TopicArn", "Id"):
        raise UnresolvedError(f"{attribute} of {name} is not known")
    # Whoever says what was deployed by Ref alone need not say the ARN too.
    given = names.get(name)
    if given is not None:
        if reference == "arn":
            return given
        physical = given.rsplit("/", 1)[-1] if reference == "url" else given.lstrip("/")
    arn = f"arn:{_ref('AWS::Partition', template, names)}:" + pattern.format(
        region=_ref("AWS::Region", template, names),
        account=_ref("AWS::AccountId", template, names),
        name=physical,
    )
    return f"{arn}/stream/*" if attribute == "StreamArn" else arn
