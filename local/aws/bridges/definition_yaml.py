"""Gap: a state machine's definition in S3 or in `DefinitionString` must be JSON.

AWS: `DefinitionS3Location` and `DefinitionString` take JSON or YAML
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-stepfunctions-statemachine.html),
and `sam deploy` uploads a DefinitionUri file as it is.
"""

import json
from typing import Any

import yaml
from ministack.services.cloudformation import provisioners

from local.aws.bridges.bridge import Bridge

BRIDGE = Bridge("definition_yaml")


@BRIDGE.replace(provisioners, "_sfn_definition")
def _sfn_definition(props: dict[str, Any]) -> str:
    definition: str = _definition(props)
    if definition.lstrip().startswith("{"):
        return definition
    return json.dumps(yaml.safe_load(definition))


_definition = BRIDGE.original(provisioners, "_sfn_definition")
