"""Write the forms in Systems Manager into the template: `python -m tools.pages.forms`.

They are made from the contracts (``tools.checks.forms``) and stand between two comments.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from tools.checks import forms, template

ROOT = Path(__file__).parents[2]
ROLE = "DocumentRole"
_BEGIN = "  # The forms in Systems Manager"
_END = "  # Dashboards are global in an account"
_INTRINSIC = re.compile(r"'?@@(![A-Za-z]+ [\w.]+)'?")
_HEAD = """\
  # The forms in Systems Manager, made from the contracts by `python -m tools.pages.forms`.
  DocumentRole:
    Type: AWS::IAM::Role
    Properties:
      Description: Starts runbooks for their forms in Systems Manager
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement:
          - Effect: Allow
            Principal: { Service: ssm.amazonaws.com }
            Action: sts:AssumeRole
            Condition:
              StringEquals: { aws:SourceAccount: !Ref AWS::AccountId }
              ArnLike:
                aws:SourceArn: !Sub AUTOMATIONS
      Policies:
        - PolicyName: StartRunbooks
          PolicyDocument:
            Version: "2012-10-17"
            Statement:
              - Sid: StartRunbooks
                Effect: Allow
                Action: states:StartExecution
                Resource:
MACHINES
              # An automation waits for its run, and cancelling it stops the execution.
              - Sid: WaitAndCancel
                Effect: Allow
                Action:
                  - states:DescribeExecution
                  - states:StopExecution
                Resource:
EXECUTIONS

"""
_AUTOMATIONS = "arn:${AWS::Partition}:ssm:*:${AWS::AccountId}:automation-execution/*"
_EXECUTIONS = "arn:${AWS::Partition}:states:${AWS::Region}:${AWS::AccountId}:execution"


def main() -> None:
    """Write the section anew."""
    path = ROOT / "template.yaml"
    text = path.read_text("utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, found, after = rest.partition(_END)
    if not found:
        raise SystemExit(f"template.yaml: there is no line {_BEGIN!r} with {_END!r} after it.")
    path.write_text(f"{before}{section(template.load(path))}{_END}{after}", "utf-8")


def section(sam: template.Template) -> str:
    """Return the role and the documents as they stand in the template."""
    machines = {
        forms.plain(properties["Name"]): name
        for name, properties in template.resources(sam, "AWS::Serverless::StateMachine").items()
    }
    contracts = {
        runbook: yaml.safe_load((ROOT / f"runbooks/{runbook}.yaml").read_text("utf-8"))
        for runbook in machines
        if (ROOT / f"runbooks/{runbook}.yaml").exists()
    }
    indent = " " * 18
    starts = "\n".join(f"{indent}- !Ref {machines[runbook]}" for runbook in contracts)
    waits = "\n".join(
        f"{indent}- !Sub {_EXECUTIONS}:${{AWS::StackName}}-{runbook}:*" for runbook in contracts
    )
    head = _HEAD.replace("AUTOMATIONS", _AUTOMATIONS)
    head = head.replace("MACHINES", starts).replace("EXECUTIONS", waits)
    return head + "".join(
        _document(runbook, machines[runbook], contract) for runbook, contract in contracts.items()
    )


def _document(runbook: str, machine: str, contract: Any) -> str:
    content = _marked(forms.content(contract, machine, ROLE))
    written = yaml.safe_dump(content, sort_keys=False, width=96, allow_unicode=True)
    lines = _INTRINSIC.sub(r"\1", written).splitlines()
    body = "\n".join(f"        {line}" if line else "" for line in lines)
    return (
        f"  {machine.removesuffix('Machine')}Document:\n"
        f"    Type: AWS::SSM::Document\n"
        f"    Properties:\n"
        f"      Name: !Sub ${{AWS::StackName}}-{runbook}\n"
        f"      DocumentType: Automation\n"
        f"      UpdateMethod: NewVersion\n"
        f"      Content:\n"
        f"{body}\n\n"
    )


def _marked(value: Any) -> Any:
    """Write intrinsic functions as marked text, to be unquoted after YAML is written."""
    if isinstance(value, dict):
        if value.keys() == {"Ref"}:
            return f"@@!Ref {value['Ref']}"
        if value.keys() == {"Fn::GetAtt"}:
            return f"@@!GetAtt {'.'.join(value['Fn::GetAtt'])}"
        return {key: _marked(inner) for key, inner in value.items()}
    return [_marked(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
