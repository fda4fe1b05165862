"""Gap: a state machine's definition in a template must be JSON, and may be invalid.

AWS: `DefinitionS3Location` and `DefinitionString` take JSON or YAML
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-stepfunctions-statemachine.html),
and `sam deploy` uploads a DefinitionUri file as it is. What CreateStateMachine refuses fails the
stack (https://docs.aws.amazon.com/step-functions/latest/apireference/API_CreateStateMachine.html).
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import json
from typing import Any

import yaml
from ministack.services import stepfunctions
from ministack.services.cloudformation import provisioners

from local.aws.bridges.bridge import Bridge

BRIDGE = Bridge("definition_yaml")


@BRIDGE.replace(provisioners, "_sfn_definition")
def _sfn_definition(props: dict[str, Any]) -> str:
    definition: str = _definition(props)
    if not definition.lstrip().startswith("{"):
        definition = json.dumps(yaml.safe_load(definition))
    if problem := stepfunctions._validate_definition_jsonata(definition):
        raise ValueError(f"Invalid State Machine Definition: '{problem}' (InvalidDefinition)")
    return definition


_definition = BRIDGE.original(provisioners, "_sfn_definition")
