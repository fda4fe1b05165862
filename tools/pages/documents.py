"""Which documents there are, read from the project's files."""

import json
from pathlib import Path

import yaml

from oncall.machine_svg import machine_svg
from tools.checks import machines, template
from tools.pages.permissions import permissions_page
from tools.pages.runbook import runbook_page


def documents(root: Path) -> dict[Path, str]:
    """Return the documents that are generated, by path."""
    text = (root / "template.yaml").read_text("utf-8")
    sam = template.load(root / "template.yaml")
    forms = [
        str(one["Name"].get("Fn::Sub", ""))
        for one in template.resources(sam, "AWS::SSM::Document").values()
    ]
    found = {root / "docs/permissions.md": permissions_page(text, sam, root)}
    schema = json.loads((root / "runbooks/runbook.schema.json").read_text("utf-8"))
    definitions = machines.load(root / "statemachines")
    for path in sorted((root / "runbooks").glob("*.yaml")):
        text = path.read_text("utf-8")
        contract, machine = yaml.safe_load(text), definitions[path.stem]
        page = root / f"docs/runbooks/{path.stem}.md"
        form = f"${{AWS::StackName}}-{path.stem}" in forms
        found[page] = runbook_page(text, contract, machine, schema, form=form)
        found[page.with_suffix(".svg")] = f"{machine_svg(machine, title=contract['title'])}\n"
    return found
