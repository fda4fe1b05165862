"""Gap: CloudFormation refuses documents of Systems Manager; Automation documents are unknown.

AWS: `AWS::SSM::Document` makes a document, with `UpdateMethod: NewVersion` a new default version
(https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-ssm-document.html);
an Automation document has schemaVersion 0.3 and mainSteps with a name and an action each, and what
it writes in braces is a parameter, an automation's or a step's value; anything else is
InvalidDocumentContent
(https://docs.aws.amazon.com/systems-manager/latest/userguide/documents-syntax-data-elements-parameters.html);
GetDocument and DescribeDocument show it
(https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetDocument.html,
https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_DescribeDocument.html).
Automations do not run here.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ministack.core.responses import AccountRegionScopedDict, error_response_json, get_account_id
from ministack.services import ssm
from ministack.services.cloudformation.provisioners import _RESOURCE_HANDLERS, _physical_name

from local.aws.bridges.bridge import Bridge

type _Document = dict[str, Any]

BRIDGE = Bridge("ssm_documents")
_documents = AccountRegionScopedDict()
_VALUE = re.compile(r"\{\{ *([\w:.-]+) *\}\}")
_KINDS = {"String", "StringList", "Integer", "Boolean", "MapList", "StringMap"}


def check(content: Mapping[str, Any]) -> None:
    """Raise ValueError for what is no Automation document."""
    if content.get("schemaVersion") != "0.3":
        raise ValueError("InvalidDocumentContent: schemaVersion of an Automation document is 0.3")
    parameters = content.get("parameters", {})
    for name, parameter in parameters.items():
        kind = str(parameter.get("type"))
        if kind not in _KINDS and not kind.startswith("AWS::"):
            raise ValueError(f"InvalidDocumentContent: parameter {name} has the type {kind}")
        allowed = parameter.get("allowedValues")
        if allowed and parameter.get("default", allowed[0]) not in allowed:
            raise ValueError(f"InvalidDocumentContent: default of {name} is not allowed")
        pattern = parameter.get("allowedPattern")
        if pattern and "default" in parameter and not re.search(pattern, parameter["default"]):
            raise ValueError(f"InvalidDocumentContent: default of {name} does not match")
    steps = content.get("mainSteps") or []
    names = [step.get("name") for step in steps]
    if not steps or len(set(names)) != len(names) or not all(step.get("action") for step in steps):
        raise ValueError("InvalidDocumentContent: mainSteps need a name of their own and an action")
    for name in _VALUE.findall(json.dumps(steps)):
        known = name in parameters or name.startswith(("automation:", "global:"))
        if not known and name.partition(".")[0] not in names:
            raise ValueError(f"InvalidDocumentContent: {{{{ {name} }}}} is nothing")


def _put(name: str, props: Mapping[str, Any]) -> tuple[str, _Document]:
    if props.get("DocumentType") != "Automation":
        raise ValueError("Only documents of type Automation are supported here.")
    check(props["Content"])
    version = _documents[name]["version"] + 1 if name in _documents else 1
    _documents[name] = {"content": props["Content"], "version": version}
    return name, {}


def _create(logical_id: str, props: _Document, stack_name: str) -> tuple[str, _Document]:
    return _put(props.get("Name") or _physical_name(stack_name, logical_id, max_len=128), props)


def _update(
    name: str, _old: _Document, props: _Document, _stack_name: str
) -> tuple[str, _Document]:
    return _put(name, props)


def _delete(name: str, _props: _Document) -> None:
    _documents.pop(name, None)


def _describe(name: str) -> _Document:
    return {
        "Name": name,
        "Owner": get_account_id(),
        "DocumentType": "Automation",
        "DocumentFormat": "JSON",
        "SchemaVersion": "0.3",
        "Status": "Active",
        "DocumentVersion": str(_documents[name]["version"]),
        "DefaultVersion": str(_documents[name]["version"]),
        "LatestVersion": str(_documents[name]["version"]),
    }


def _details(name: str) -> _Document:
    content = _documents[name]["content"]
    parameters = [
        {
            "Name": one,
            "Type": parameter["type"],
            "Description": parameter.get("description", ""),
            **({"DefaultValue": parameter["default"]} if "default" in parameter else {}),
        }
        for one, parameter in content.get("parameters", {}).items()
    ]
    described = {"Description": content.get("description", ""), "Parameters": parameters}
    return {"Document": {**_describe(name), **described}}


_OPERATIONS: Mapping[str, Callable[[str], _Document]] = {
    "DescribeDocument": _details,
    "GetDocument": lambda name: {
        **_describe(name),
        "Content": json.dumps(_documents[name]["content"]),
    },
}


_original = BRIDGE.original(ssm, "handle_request")


@BRIDGE.replace(ssm, "handle_request")
async def _handle(
    method: str, path: str, headers: Mapping[str, str], body: bytes, query: Any
) -> Any:
    operation = _OPERATIONS.get(headers.get("x-amz-target", "").rpartition(".")[2])
    if operation is None:
        return await _original(method, path, headers, body, query)
    name = str(json.loads(body or b"{}").get("Name", "")).rpartition("document/")[2]
    if name not in _documents:
        message = f"Document with name {name} does not exist."
        return error_response_json("InvalidDocument", message, 400)
    answer = json.dumps(operation(name)).encode()
    return 200, {"Content-Type": "application/x-amz-json-1.1"}, answer


BRIDGE.add(
    _RESOURCE_HANDLERS,
    "AWS::SSM::Document",
    {"create": _create, "update": _update, "delete": _delete},
)
