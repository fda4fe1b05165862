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
    schema = json.loads((root / "runbooks/runbook.schema.json").read_text("utf-8"))
    definitions = machines.load(root / "statemachines")
    found: dict[Path, str] = {}
    for path in sorted((root / "runbooks").glob("*.yaml")):
        text = path.read_text("utf-8")
        contract, machine = yaml.safe_load(text), definitions[path.stem]
        page = root / f"docs/runbooks/{path.stem}.md"
        found[page] = runbook_page(text, contract, machine, schema)
        found[page.with_suffix(".svg")] = f"{machine_svg(machine, title=contract['title'])}\n"
    text = (root / "template.yaml").read_text("utf-8")
    sam = template.load(root / "template.yaml")
    found[root / "docs/permissions.md"] = permissions_page(text, sam, root)
    return found
