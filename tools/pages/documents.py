"""Which documents there are, read from the project's files."""

import json
from pathlib import Path

import yaml

from tools.checks import machines
from tools.pages.runbook import runbook_page


def documents(root: Path) -> dict[Path, str]:
    """Return the documents that are generated, by path."""
    schema = json.loads((root / "runbooks/runbook.schema.json").read_text("utf-8"))
    definitions = machines.load(root / "statemachines")
    found: dict[Path, str] = {}
    for path in sorted((root / "runbooks").glob("*.yaml")):
        text = path.read_text("utf-8")
        page = runbook_page(
            text, yaml.safe_load(text), definitions[path.stem], schema, picture=False
        )
        found[root / f"docs/runbooks/{path.stem}.md"] = page
    return found
