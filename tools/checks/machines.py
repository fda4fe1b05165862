"""Read the state machines and run `asl-validator` over them."""

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tools.checks import expressions
from tools.checks.finding import Finding

ROOT = Path(__file__).parents[2]
_NODE = ROOT / ".venv/bin/node"
_VALIDATOR = ROOT / "tools/asl/node_modules/asl-validator/dist/bin/asl-validator.js"


def load(directory: Path) -> dict[str, dict[str, Any]]:
    """Return the parsed `<id>.asl.yaml` files of a directory by id."""
    return {
        path.name.removesuffix(".asl.yaml"): yaml.safe_load(path.read_text("utf-8"))
        for path in sorted(directory.glob("*.asl.yaml"))
    }


def validate(definitions: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Run asl-validator over all definitions in one call.

    Raises FileNotFoundError when it is not installed (`make setup` installs it) and
    CalledProcessError when it breaks.
    """
    if not _VALIDATOR.exists():
        raise FileNotFoundError(f"{_VALIDATOR.relative_to(ROOT)} is missing: run `make setup`")
    with tempfile.TemporaryDirectory() as folder:
        arguments: list[str] = []
        for name, definition in definitions.items():
            path = Path(folder) / f"{name}.json"
            path.write_text(json.dumps(_plain(definition)), "utf-8")
            arguments += ["--json-path", str(path)]
        done = subprocess.run(  # noqa: S603 -- our own lock file installed it; no shell
            [_NODE, _VALIDATOR, *arguments], capture_output=True, text=True, check=False
        )
    output = done.stdout + done.stderr
    if done.returncode not in (0, 1):
        raise subprocess.CalledProcessError(done.returncode, "asl-validator", output)
    return _complaints(output, definitions)


def _plain(value: Any) -> Any:
    """Make a definition what asl-validator 4.0.0 can judge, without a change in meaning.

    Its patterns for strings match neither an empty one nor a line break, though AWS takes both, and
    it reads expressions with their placeholders not filled in.
    """
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, str):
        return value
    expression = expressions.body(value)
    text = value if expression is None else f"{{%{expression}%}}"
    return text.replace("\n", " ") or " "


def _complaints(output: str, definitions: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Take the report apart: a line with a cross names the file, the lines below say what it is."""
    findings: list[Finding] = []
    seen: set[str] = set()
    where = ""
    for line in filter(None, map(str.strip, output.splitlines())):
        if line.startswith(("✓", "✕")):
            where = next(name for name in definitions if f'{name}.json"' in line)
            seen.add(where)
            if line.startswith("✓"):
                where = ""
        elif where:
            findings.append(Finding("asl-validator", where, line))
    if seen != set(definitions):
        raise ValueError(f"asl-validator said nothing about {sorted(set(definitions) - seen)}")
    return findings
