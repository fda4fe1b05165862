"""Rules for how the parts hang together: imports, template entries, links."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tools.checks import asl_rules
from tools.checks.finding import Finding
from tools.checks.template import Template

_LIBRARY = "oncall"
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+?)\s*$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
# Packages whose import name is not that of their distribution; boto3 comes with the runtime.
_IMPORT_NAMES = {"dnspython": "dns", "pyyaml": "yaml", "slack-sdk": "slack_sdk"}
_RUNTIME = frozenset({"boto3", "botocore"})


def libraries(pyproject: str) -> set[str]:
    """Return the import names of what ships to Lambda, from the text of pyproject.toml."""
    named = tomllib.loads(pyproject)["project"]["dependencies"]
    found = {re.split(r"[\[<>=!~ ]", dependency)[0].lower() for dependency in named}
    return {_IMPORT_NAMES.get(name, name.replace("-", "_")) for name in found} | _RUNTIME


def imports(source: str) -> set[str]:
    """Return the top-level packages that a module imports, those for type checking excluded."""
    tree = ast.parse(source)
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0] if not node.level else ".")
    return found


def check_imports(
    sources: Mapping[str, str], allowed: Iterable[str], root: Iterable[str]
) -> list[Finding]:
    """Check who imports whom under functions/.

    `sources` maps paths relative to functions/ to their text, `allowed` are the libraries that
    ship, `root` the project's other packages. Type-checking imports are free: they do not run.
    """
    verbs = {path.removesuffix(".py") for path in sources if "/" not in path}
    shipped = set(allowed) | sys.stdlib_module_names
    findings: list[Finding] = []
    for path, source in sources.items():
        for package in imports(source):
            if package in verbs:
                findings.append(Finding("import-verb", path, f"imports the verb {package}"))
            elif package in root:
                findings.append(Finding("import-outside", path, f"imports {package}"))
            elif package not in shipped | {_LIBRARY, "."}:
                findings.append(Finding("import-library", path, f"{package} does not ship"))
    return sorted(findings)


def check_functions(sources: Mapping[str, str], sam: Template) -> list[Finding]:
    """Every file under functions/ is a function of the template, and the other way round."""
    handlers = {
        name: str(resource["Properties"]["Handler"])
        for name, resource in sam["Resources"].items()
        if resource["Type"] == "AWS::Serverless::Function"
    }
    files = {path.removesuffix(".py"): text for path, text in sources.items() if "/" not in path}
    findings = [
        Finding("function-missing", module, "no function of the template runs this file")
        for module in files.keys() - {handler.rpartition(".")[0] for handler in handlers.values()}
    ]
    for name, handler in handlers.items():
        module, _, attribute = handler.rpartition(".")
        if module not in files:
            findings.append(Finding("handler-unknown", name, f"there is no file {module}.py"))
        elif attribute not in _top_level(files[module]):
            findings.append(Finding("handler-unknown", name, f"{module}.py has no {attribute}"))
    return sorted(findings)


def _top_level(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def check_machines(machines: Mapping[str, Mapping[str, Any]], sam: Template) -> list[Finding]:
    """Every machine file is deployed, and its placeholders are what the template fills in.

    `machines` maps ids to definitions. A substitution named …Arn must be the ARN of a function of
    `sam`, any other one a parameter.
    """
    deployed = {
        Path(str(resource["Properties"].get("DefinitionUri"))).name.removesuffix(".asl.yaml"): (
            name,
            resource["Properties"].get("DefinitionSubstitutions", {}),
        )
        for name, resource in sam["Resources"].items()
        if resource["Type"] == "AWS::Serverless::StateMachine"
    }
    findings = [
        Finding("machine-missing", one, "the template does not deploy it")
        for one in machines.keys() - deployed.keys()
    ]
    for one, (name, filled) in deployed.items():
        if one not in machines:
            findings.append(Finding("machine-unknown", name, f"there is no {one}.asl.yaml"))
            continue
        wanted = asl_rules.substitutions(machines[one])
        findings += [
            Finding("substitution-missing", name, f"nothing fills in ${{{placeholder}}}")
            for placeholder in wanted - filled.keys()
        ]
        findings += [
            Finding("substitution-unused", name, f"{placeholder} is not in the machine")
            for placeholder in filled.keys() - wanted
        ]
        findings += list(_filled(name, filled, sam))
    return sorted(findings)


def _filled(name: str, filled: Mapping[str, Any], sam: Template) -> Iterator[Finding]:
    for placeholder, value in filled.items():
        if not placeholder.endswith("Arn"):
            if not isinstance(value, Mapping) or value.get("Ref") not in sam["Parameters"]:
                yield Finding("substitution-target", name, f"{placeholder} is no parameter")
            continue
        target = value.get("Fn::GetAtt") if isinstance(value, Mapping) else None
        target = target.split(".") if isinstance(target, str) else target
        function = target[0] if target and target[1] == "Arn" else ""
        kind = sam["Resources"].get(function, {}).get("Type")
        if kind != "AWS::Serverless::Function":
            yield Finding("substitution-target", name, f"{placeholder} is not a function's Arn")


def check_links(documents: Mapping[Path, str]) -> list[Finding]:
    """Every relative link leads to a file, and every anchor to a heading of it.

    `documents` maps the paths of Markdown files to their text.
    """
    findings: list[Finding] = []
    for path, text in documents.items():
        for link in _LINK.findall(_FENCE.sub("", text)):
            if re.match(r"[a-z]+:", link):
                continue
            file, _, anchor = link.partition("#")
            target = (path.parent / file).resolve() if file else path.resolve()
            if not target.exists():
                findings.append(Finding("link", path.name, f"{link} leads nowhere"))
            elif target.suffix == ".md" and anchor not in {
                "",
                *_anchors(target.read_text("utf-8")),
            }:
                findings.append(Finding("link", path.name, f"{link}: no such heading"))
    return sorted(findings)


def _anchors(text: str) -> set[str]:
    """Return GitHub's anchors of the headings: lower case, words joined by hyphens."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in _HEADING.findall(_FENCE.sub("", text))
    }
