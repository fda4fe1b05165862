"""Systems Manager documents: each runbook's typed form, made from its contract and held to it.

A document starts its runbook's machine and waits for it, so that the automation is green only where
the run is. The data elements are those of
https://docs.aws.amazon.com/systems-manager/latest/userguide/documents-syntax-data-elements-parameters.html
and of
https://docs.aws.amazon.com/systems-manager/latest/userguide/automation-action-executeStateMachine.html;
cfn-lint checks the shape (E3051).
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tools.checks.finding import Finding
from tools.checks.template import Template, resources

type Contract = Mapping[str, Any]

_REASON = {
    "type": "String",
    "description": "Why, for the incident's record.",
    "default": "",
    # It is put into JSON as it stands.
    "allowedPattern": '^[^"\\\\{}\\x00-\\x1f]{0,500}$',
}
_WATCH = (
    "Watch it in the Slack thread, on the dashboard, or with `runbook watch` and this automation's "
    "id, which is the incident's as well. It succeeds only where the run helped. To stop it press "
    "Abort in the thread; cancelling the automation stops the execution, and the sweeper puts back "
    "what it changed within five minutes."
)
_SPARE_SECONDS = 300
_NAME = re.compile(r"\{\{ *([\w:.]+) *\}\}")


def content(contract: Contract, machine: str, role: str) -> dict[str, Any]:
    """Return a runbook's document, with the names of its machine and role in the template."""
    key = contract["trigger"]["input"]
    parameters = {
        name: _parameter(name, schema, key) for name, schema in contract["inputs"].items()
    }
    parameters["mode"] = {
        "type": "String",
        "description": "observe looks and plans only; ask waits for an approver; auto acts.",
        "allowedValues": ["observe", "ask", "auto"],
        "default": contract["modes"]["hand"],
    }
    parameters["reason"] = dict(_REASON)
    given = {name: f"{{{{ {name} }}}}" for name in parameters}
    given["by"] = "Systems Manager automation {{ automation:EXECUTION_ID }}"
    return {
        "schemaVersion": "0.3",
        "description": f"# {contract['title']}\n{contract['summary'].strip()}\n\n{_WATCH}",
        "assumeRole": {"Fn::GetAtt": [role, "Arn"]},
        "parameters": parameters,
        "mainSteps": [
            {
                "name": "Run",
                "action": "aws:executeStateMachine",
                "timeoutSeconds": contract["limits"]["run_seconds"] + _SPARE_SECONDS,
                "isEnd": True,
                "inputs": {
                    "stateMachineArn": {"Ref": machine},
                    "name": "{{ automation:EXECUTION_ID }}",
                    "input": json.dumps(given),
                },
            }
        ],
        "outputs": ["Run.executionArn", "Run.output"],
    }


def _parameter(name: str, schema: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Make a parameter of an input; a pattern holds for the default as well."""
    pattern = schema.get("pattern", "") or f"^({'|'.join(map(re.escape, schema.get('enum', ())))})$"
    parameter = {"type": "String", "description": str(schema["description"]).strip()}
    if name == key:
        return {**parameter, "allowedPattern": pattern}
    return {**parameter, "default": "", "allowedPattern": f"^$|{pattern}"}


def check_documents(
    contracts: Mapping[str, Contract], translated: Template, role: str
) -> list[Finding]:
    """Compare the template's documents with what the contracts say, one for each runbook."""
    machines = {
        plain(properties.get("StateMachineName")): name
        for name, properties in resources(translated, "AWS::StepFunctions::StateMachine").items()
    }
    documents = {
        plain(properties.get("Name")): (name, properties)
        for name, properties in resources(translated, "AWS::SSM::Document").items()
    }
    findings = [
        Finding("document-unknown", name, "there is no such runbook")
        for one, (name, _) in documents.items()
        if one not in contracts
    ]
    for runbook, contract in contracts.items():
        if runbook not in documents:
            findings.append(
                Finding("document-missing", runbook, "it has no form in Systems Manager")
            )
            continue
        name, properties = documents[runbook]
        wanted = content(contract, machines[runbook], role)
        if properties.get("DocumentType") != "Automation":
            findings.append(Finding("document-type", name, "it is no Automation document"))
        findings += [
            Finding("document-differs", name, f"{part} is not as its contract says")
            for part in {*wanted, *properties["Content"]}
            if properties["Content"].get(part) != wanted.get(part)
        ]
        findings += _names(name, properties["Content"])
    return sorted(findings)


def plain(name: Any) -> str:
    """Return a name without the stack's: ``${AWS::StackName}-queue-saturation``."""
    text = name["Fn::Sub"] if isinstance(name, Mapping) else str(name)
    return text.removeprefix("${AWS::StackName}-")


def _names(where: str, document: Mapping[str, Any]) -> Iterator[Finding]:
    known = {*document.get("parameters", {}), "automation:EXECUTION_ID"}
    for name in _NAME.findall(json.dumps(document.get("mainSteps", []))):
        if name not in known:
            yield Finding("document-name", where, f"{{{{ {name} }}}} is no parameter")
