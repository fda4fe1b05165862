"""Read the SAM template, translate it as CloudFormation would, and run the linters over it.

cfn-lint says nothing about IAM policies or state machines inside SAM resources (it returns early
when the template has a transform), hence the translated form is linted as well.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
import yaml
from cfnlint import core  # type: ignore[import-untyped]  # published without types
from cfnlint.api import lint  # type: ignore[import-untyped]  # as above
from cloudformation_validate import (
    CelEngine,
    EngineConfig,
    ValidateConfig,
    file_to_external_rule_source,
)
from samtranslator.parser.parser import Parser
from samtranslator.sdk.parameter import SamParameterValues
from samtranslator.translator.transform import to_py27_compatible_template
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

from tools.checks.finding import Finding

type Template = dict[str, Any]

_REGION = "us-east-1"
# Notices that matter here: keep data when a resource is replaced, say how long a queue keeps its
# messages. Warnings and errors are on without being asked for.
_NOTICES = ["I3011", "I3013"]
_IGNORED = [
    "ES6000",  # this stack's queues are dead-letter queues; they have none of their own
    "WS1004",  # looks for /aws/lambda/<name> only; the Guard rule function_log_group is stricter
]
_BUILT = "s3://example-bucket/built.zip"


def load(path: Path) -> Template:
    """Return the SAM template with `!Ref` and its kin in their long form."""
    parsed: Template = yaml_parse(path.read_text("utf-8"))
    return parsed


def translate(sam: Template, root: Path) -> Template:
    """Return the CloudFormation template that SAM makes of `sam`, without asking AWS.

    State machine definitions are read from `root` and inlined, and local code is taken as built.
    Raises samtranslator's InvalidDocumentException when SAM refuses the template.
    """
    template = copy.deepcopy(sam)
    code = template.get("Globals", {}).get("Function", {})
    if "CodeUri" in code:
        code["CodeUri"] = _BUILT
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        match resource["Type"]:
            case "AWS::Serverless::Function" if "InlineCode" not in properties:
                properties["CodeUri"] = _BUILT
            case "AWS::Serverless::LayerVersion":
                properties["ContentUri"] = _BUILT
            case "AWS::Serverless::StateMachine" if isinstance(
                properties.get("DefinitionUri"), str
            ):
                definition = root / properties.pop("DefinitionUri")
                properties["Definition"] = yaml.safe_load(definition.read_text("utf-8"))
    values: dict[str, Any] = {}
    SamParameterValues(values).add_default_parameter_values(template)
    to_py27_compatible_template(template, values)
    session = boto3.Session(region_name=_REGION)
    translated: Template = Translator({}, Parser(), boto_session=session).translate(
        template, parameter_values=values
    )
    # Plain dictionaries again; the translator leaves its own string and node types behind.
    plain: Template = json.loads(json.dumps(translated))
    return plain


def cfn_lint(template: Template) -> list[Finding]:
    """Run cfn-lint over a template in either form.

    The serverless rules see the translated form alone: in the raw one they take a permission for
    lacking an EventInvokeConfig that its SAM function has.
    """
    more = [] if "Transform" in template else ["cfn_lint_serverless.rules"]
    rules = core.get_rules(more, _IGNORED, _NOTICES)
    return sorted(
        Finding(match.rule.id, "/".join(map(str, match.path or ())), match.message)
        for match in lint(json.dumps(template), rules=rules, regions=[_REGION])
    )


class GuardRules:
    """The Guard rules of a directory, compiled once."""

    def __init__(self, directory: Path) -> None:
        self._engine = CelEngine(
            EngineConfig(
                guard_rules=[
                    file_to_external_rule_source(path) for path in sorted(directory.glob("*.guard"))
                ]
            )
        )

    def check(self, template: Mapping[str, Any]) -> list[Finding]:
        """Return what the rules find. A rule without a resource of its type is silent."""
        report = self._engine.validate_template(
            json.dumps(template).encode(), ValidateConfig(disable_builtin_rules=True)
        )
        return sorted(
            {
                Finding(
                    found.rule_id,
                    found.entity.logical_id if found.entity else "template",
                    found.message,
                )
                for found in report.diagnostics
            }
        )


def resources(template: Template, kind: str) -> dict[str, dict[str, Any]]:
    """Return the properties of all resources of a type by logical id."""
    return {
        name: resource.get("Properties", {})
        for name, resource in template["Resources"].items()
        if resource["Type"] == kind
    }


def as_list(value: Any) -> Sequence[Any]:
    """IAM and CloudFormation let one item stand for a list of one."""
    return value if isinstance(value, list) else [value]
