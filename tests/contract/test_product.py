"""What this project deploys keeps every rule. The rules themselves are proved beside this file."""

import ast
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml

from oncall.counting import count
from oncall.links import links_of
from tests.unit.incidents import an_incident
from tools.checks import (
    asl_rules,
    commands,
    contracts,
    dashboards,
    forms,
    frame,
    house,
    iam_rules,
    layers,
    machines,
    template,
    template_rules,
)
from tools.checks.finding import Finding
from tools.pages.documents import documents
from tools.pages.forms import section

ROOT = Path(__file__).parents[2]
MACHINES = machines.load(ROOT / "statemachines")
CONTRACTS = {
    path.stem: yaml.safe_load(path.read_text("utf-8"))
    for path in sorted((ROOT / "runbooks").glob("*.yaml"))
}
SOURCES = {
    path.relative_to(ROOT / "functions").as_posix(): path.read_text("utf-8")
    for path in sorted((ROOT / "functions").rglob("*.py"))
}
# Machines that no alarm starts and no contract describes.
INTERNAL = {
    "wind-down": "ends incidents whose own run is gone; the sweep alone starts it",
}
# A Catch on these may lead to a good end: the plan is made again, or the next in line is asked.
HANDLED_ERRORS = {"WorldMoved", "States.HeartbeatTimeout", "States.Timeout"}
# Services whose errors a function lets through by their class name, for a Retry to name.
CALLED_SERVICES = ("dynamodb", "lambda", "sqs", "ssm")
# What the functions publish by CloudWatch's embedded metric format, and under which dimensions.
OWN_METRICS: dict[str, dict[str, set[template_rules.Dimensions]]] = {
    "Runbooks": {
        "AlarmsFound": {frozenset({"service"})},
        "AlarmsGathered": {frozenset({"service"})},
        "AlarmsIgnored": {frozenset({"service", "Reason"})},
        "AlarmsMisconfigured": {frozenset({"service"})},
        "AlarmsStarted": {frozenset({"service"})},
        "ReportsNotDelivered": {frozenset({"service"})},
        "RunsClosed": {frozenset({"service", "Runbook", "Outcome"})},
        "SecondsToRelief": {frozenset({"service", "Runbook"})},
    }
}
# A rule that meets no resource is silent: the template must have one of each of these types.
MUST_HAVE = (
    "AWS::CloudWatch::Alarm",
    "AWS::DynamoDB::Table",
    "AWS::Events::Rule",
    "AWS::IAM::Role",
    "AWS::KMS::Key",
    "AWS::Lambda::EventSourceMapping",
    "AWS::Lambda::Function",
    "AWS::Lambda::Permission",
    "AWS::Lambda::Url",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::SNS::Topic",
    "AWS::SQS::Queue",
    "AWS::SQS::QueuePolicy",
    "AWS::StepFunctions::StateMachine",
)


@cache
def sam() -> template.Template:
    return template.load(ROOT / "template.yaml")


@cache
def deployed() -> template.Template:
    return template.translate(sam(), ROOT)


def told(findings: Iterable[Finding]) -> list[str]:
    """Return findings as sentences, which pytest shows better than objects."""
    return [str(finding) for finding in findings]


def error_classes() -> set[str]:
    """Return the names of the exceptions that functions raise on purpose or let through."""
    own = {
        node.name
        for source in SOURCES.values()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef) and node.bases
    }
    session = botocore.session.get_session()
    return own | {
        shape
        for service in CALLED_SERVICES
        for shape in session.get_service_model(service).shape_names
        if shape.endswith(("Exception", "Exceeded", "NotFound"))
    }


def test_there_is_something_to_check() -> None:
    assert MACHINES
    assert CONTRACTS
    assert SOURCES
    assert CONTRACTS.keys() == MACHINES.keys() - INTERNAL.keys()
    assert INTERNAL.keys() <= MACHINES.keys()


def test_asl_validator_takes_every_machine() -> None:
    assert told(machines.validate(MACHINES)) == []


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_keeps_the_rules(name: str) -> None:
    findings = asl_rules.check_machine(
        MACHINES[name], handled_errors=HANDLED_ERRORS, error_classes=error_classes()
    )

    assert told(findings) == []


def test_every_runbook_has_the_same_frame() -> None:
    assert told(frame.check_frame({name: MACHINES[name] for name in CONTRACTS})) == []


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_contract_keeps_the_rules(name: str) -> None:
    schema = json.loads((ROOT / "runbooks/runbook.schema.json").read_text("utf-8"))
    text = (ROOT / f"runbooks/{name}.yaml").read_text("utf-8")

    findings = contracts.check_contract(name, CONTRACTS[name], schema, sam()["Parameters"])
    findings += contracts.check_numbers(name, text, CONTRACTS[name], schema)

    assert told(findings) == []


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_contract_agrees_with_its_machine(name: str) -> None:
    filled = asl_rules.substitutions(MACHINES[name])

    findings = contracts.check_agreement(
        name,
        CONTRACTS[name],
        MACHINES[name],
        verifies={one for one in filled if one.startswith("Verify")},
        puts_back={one for one in filled if one.startswith("PutBack")},
    )

    assert told(findings) == []


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_commands_of_a_contract_work(name: str) -> None:
    assert told(commands.check_commands(name, "\n".join(texts(CONTRACTS[name])))) == []


@pytest.mark.parametrize("name", MACHINES)
def test_the_commands_of_a_machine_work(name: str) -> None:
    assert told(commands.check_commands(name, "\n".join(texts(MACHINES[name])))) == []


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("form", [sam, deployed], ids=["raw", "translated"])
def test_the_template_lints_clean(form: Any) -> None:
    assert told(template.cfn_lint(form())) == []


def test_the_template_keeps_the_guard_rules() -> None:
    rules = template.GuardRules(Path(__file__).parent / "rules")

    assert told(rules.check(deployed())) == []


def test_the_template_has_what_the_guard_rules_speak_about() -> None:
    assert set(MUST_HAVE) <= {one["Type"] for one in deployed()["Resources"].values()}


def test_parameters_keep_the_rules() -> None:
    assert told(template_rules.check_parameters(sam())) == []


def test_alarms_watch_metrics_that_exist() -> None:
    assert told(template_rules.check_alarms(deployed(), OWN_METRICS)) == []


def test_own_metrics_are_published(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "runbooks")
    counted = counted_by_functions()
    assert counted.keys() == OWN_METRICS["Runbooks"].keys()
    for name, dimensions in OWN_METRICS["Runbooks"].items():
        for given in counted[name]:
            count(name, **dict.fromkeys(given, "x"))
            [published] = json.loads(capsys.readouterr().out)["_aws"]["CloudWatchMetrics"]

            assert published["Namespace"] == "Runbooks"
            assert {frozenset(some) for some in published["Dimensions"]} == dimensions


def counted_by_functions() -> dict[str, set[frozenset[str]]]:
    """Return what the functions' code counts: metrics by name, each with its sets of dimensions."""
    found: dict[str, set[frozenset[str]]] = {}
    for node in ast.walk(ast.parse("\n".join(SOURCES.values()))):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        if getattr(node.func, "attr", getattr(node.func, "id", "")) not in {"count", "count_alarm"}:
            continue
        for name in ast.walk(node.args[0]):
            # The store counts as well, under names that begin small.
            if isinstance(name, ast.Constant) and str(name.value)[:1].isupper():
                by = frozenset(str(keyword.arg) for keyword in node.keywords)
                found.setdefault(str(name.value), set()).add(by)
    return found


def test_the_dashboard_keeps_the_rules() -> None:
    assert template.resources(deployed(), "AWS::CloudWatch::Dashboard")
    assert told(dashboards.check_dashboards(deployed(), OWN_METRICS)) == []


def test_every_runbook_has_its_form_in_systems_manager() -> None:
    assert told(forms.check_documents(CONTRACTS, deployed(), "DocumentRole")) == []


def test_the_forms_are_written_anew_when_a_contract_changes() -> None:
    assert section(sam()) in (ROOT / "template.yaml").read_text("utf-8"), (
        "run python -m tools.pages.forms"
    )


def test_whoever_looks_at_the_dashboard_changes_nothing_by_it() -> None:
    role = deployed()["Resources"]["ShowIncidentsFunctionRole"]["Properties"]
    actions = {
        action
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        for action in template.as_list(statement["Action"])
    }
    assert {action.partition(":")[2][:3] for action in actions} <= {"Get", "Que", "Des", "Dec"}


def test_roles_keep_the_rules() -> None:
    assert told(iam_rules.check_roles(deployed())) == []


def test_imports_follow_the_layers() -> None:
    shipped = layers.libraries((ROOT / "pyproject.toml").read_text("utf-8"))
    others = {"cli", "local", "tests", "tools", "workload"}

    assert told(layers.check_imports(SOURCES, shipped, others)) == []


def test_functions_and_template_agree() -> None:
    assert told(layers.check_functions(SOURCES, sam())) == []


def test_machines_and_template_agree() -> None:
    assert told(layers.check_machines(MACHINES, sam())) == []


def test_generated_documents_are_what_would_be_written() -> None:
    stale = [
        path.relative_to(ROOT).as_posix()
        for path, content in documents(ROOT).items()
        if not path.exists() or path.read_text("utf-8") != content
    ]

    assert stale == [], "run `make pages`"


def test_no_page_is_left_of_a_runbook_that_is_gone() -> None:
    there = {path.stem for path in (ROOT / "docs/runbooks").iterdir()}

    assert there == CONTRACTS.keys()


def test_the_address_of_the_pages_is_told_as_it_is() -> None:
    described = sam()["Parameters"]["RunbookDocsUrl"]["Description"]
    [example] = re.findall(r"https://\S+\{runbook\}[\w.]*", described)

    for name in CONTRACTS:
        link = links_of(an_incident(runbook=name), docs_url=example).runbook
        _, _, path = link.partition("/blob/main/")
        assert (ROOT / path).is_file()
        assert path.endswith(".md")


def test_documents_link_to_what_is_there() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
    documents = {page: page.read_text("utf-8") for page in pages}

    assert (ROOT / "docs/architecture.md") in documents
    assert told(layers.check_links(documents)) == []
    for page, text in documents.items():
        assert told(commands.check_commands(page.name, text)) == []


def test_tracked_files_hold_nothing_that_must_not_be_there() -> None:
    files = [path for path in house.tracked(ROOT) if path.is_file() and not path.is_symlink()]
    findings = [
        finding
        for path in files
        for finding in house.check_text(
            path.relative_to(ROOT).as_posix(), path.read_text("utf-8", errors="replace")
        )
    ]

    assert files
    assert told(findings) == []
