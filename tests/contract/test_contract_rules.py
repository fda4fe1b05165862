"""Contracts, commands, layers and house rules: each finds its planted flaw."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.contract.planting import GONE, planted
from tools.checks import commands, contracts, house, layers, machines, template

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCHEMA = json.loads((ROOT / "runbooks/runbook.schema.json").read_text("utf-8"))
MACHINE = machines.load(HERE / "machines")["clean"]
CONTRACT = yaml.safe_load((HERE / "contracts/clean.yaml").read_text("utf-8"))
SAM = template.load(HERE / "templates/clean.yaml")

type Flaw = tuple[str, Sequence[str | int], Any]

CONTRACT_FLAWS: Sequence[Flaw] = [
    ("contract-schema", ("owner",), GONE),
    ("contract-schema", ("steps", 1, "undo"), GONE),
    ("contract-schema", ("steps", 1, "no_undo_because"), "Both."),
    ("contract-schema", ("ownr",), "x"),
    ("contract-schema", ("steps", 0, "by_hand"), ""),
    ("contract-schema", ("document", "stops_and_calls_you", 0), "Sometimes."),
    ("contract-id", ("id",), "dirty"),
    ("contract-trigger", ("trigger", "input"), "qeueu"),
    ("contract-trigger", ("trigger", "dimension"), "QueueNam"),
    ("contract-trigger", ("trigger", "metrics"), ["Depth"]),
    ("contract-input", ("inputs", "queue", "type"), "strign"),
    ("contract-input", ("inputs", "queue", "pattern"), "["),
    ("contract-example", ("inputs", "queue", "examples"), ["no blanks"]),
    ("contract-example", ("inputs", "queue", "default"), 3),
    ("limit-twice", ("limits", "max_factor"), 5),
    ("limit-twice", ("verification", "max_factor"), 5),
    ("limit-twice", ("verification", "run_seconds"), 5),
]
AGREEMENT_FLAWS: Sequence[Flaw] = [
    ("step-missing", ("steps", 2), GONE),
    ("step-unknown", ("steps", 0, "state"), "Opne incident"),
    ("run-seconds", ("limits", "run_seconds"), 60),
]


def name(flaw: Flaw) -> str:
    return f"{flaw[0]}-{'.'.join(map(str, flaw[1]))}"


def contract_rules(contract: Any) -> set[str]:
    findings = contracts.check_contract("clean", contract, SCHEMA, ["MaxFactor", "Owner"])
    return {finding.rule for finding in findings}


@pytest.mark.parametrize("flaw", CONTRACT_FLAWS, ids=name)
def test_a_flaw_in_a_contract_is_found(flaw: Flaw) -> None:
    rule, path, value = flaw

    assert contract_rules(planted(CONTRACT, path, value)) == {rule}


def agreement_rules(contract: Any, machine: Any, looks: Sequence[str] = ("LookArn",)) -> set[str]:
    findings = contracts.check_agreement(
        "clean", contract, machine, verifies=looks, puts_back=["UndoArn"]
    )
    return {finding.rule for finding in findings}


@pytest.mark.parametrize("flaw", AGREEMENT_FLAWS, ids=name)
def test_a_contract_that_disagrees_with_its_machine_is_found(flaw: Flaw) -> None:
    rule, path, value = flaw

    assert rule in agreement_rules(planted(CONTRACT, path, value), looked_at())


def looked_at(function: str = "${LookArn}") -> Any:
    """Return the clean machine with a look at the result after its change."""
    look = {
        **MACHINE["States"]["Close incident"],
        "Arguments": {"FunctionName": function},
        "Next": "Close incident",
    }
    machine = planted(MACHINE, ("States", "Look whether it helps"), look)
    return planted(machine, ("States", "Settle", "Next"), "Look whether it helps")


def test_a_change_that_nobody_looks_at_is_found() -> None:
    assert agreement_rules(CONTRACT, looked_at()) == set()
    assert agreement_rules(CONTRACT, looked_at(), looks=["OtherArn"]) == {"change-unverified"}


def test_a_change_that_is_undone_needs_no_look() -> None:
    assert agreement_rules(CONTRACT, looked_at("${UndoArn}")) == set()
    assert agreement_rules(CONTRACT, looked_at("${OtherArn}")) == {"change-unverified"}


def test_a_way_around_the_look_is_found() -> None:
    around = planted(looked_at(), ("States", "Raise each limit", "Next"), "Close incident")

    assert agreement_rules(CONTRACT, around) == {"change-unverified"}


@pytest.mark.parametrize(
    ("comment", "means", "rules"),
    [
        ("  # The cap, at most.\n  # Never more.\n", "The cap, at most. Never more.", []),
        ("", None, ["number-unexplained"]),
    ],
)
def test_a_number_without_a_comment_is_found(
    comment: str, means: str | None, rules: Sequence[str]
) -> None:
    text = f"limits:\n{comment}  cap: 5\n  plans: 3\nverification: {{}}\n"
    contract = yaml.safe_load(text)

    said = contracts.meanings(text, contract, SCHEMA)
    found = contracts.check_numbers("clean", text, contract, SCHEMA)

    assert said.get("cap") == means
    assert "So many plans" in said["plans"]
    assert [one.rule for one in found] == rules


def test_a_clean_contract_is_left_alone() -> None:
    assert contract_rules(CONTRACT) == set()


@pytest.mark.parametrize(
    "command",
    [
        "aws sqss list-queues",
        "aws sqs list-queue",
        "aws sqs get-queue-attributes --queue-ulr URL",
        "aws sqs get-queue-attributes --attribute-names All",
        "aws lambda update-event-source-mapping --uuid U --no-enable",
        "first this, then `aws sqs purge-queue --queue URL`",
        "aws ssm put-parameter --overwrite --name N --value 'a b",
        "aws sqs list-queue-tags --queue-url",
        "aws sqs start-message-move-task --source-arn A --max-number-of-messages-per-second few",
        "aws sqs get-queue-attributes --queue-url URL --attribute-names Everything",
        "aws lambda update-event-source-mapping --uuid U --scaling-config MaximumConcurency=N",
        """aws lambda update-event-source-mapping --uuid U --scaling-config '{"Maximum": 2}'""",
        """aws lambda update-event-source-mapping --uuid U --scaling-config '{"Maximum": '""",
        "aws sqs tag-queue --queue-url URL --tags runbook-automation",
        "aws cloudwatch put-metric-data --namespace N --metric M --value 1",
        """aws lambda invoke --function-name F --payload '{"a": 1}' /dev/stdout""",
        "aws lambda invoke --function-name F --cli-binary-format raw-in-base64-out --payload '{}'",
    ],
)
def test_a_command_that_the_cli_refuses_is_found(command: str) -> None:
    assert {finding.rule for finding in commands.check_commands("step", command)} == {"command"}


@pytest.mark.parametrize(
    "command",
    [
        "aws sqs get-queue-attributes --queue-url URL --attribute-names All | jq .",
        "aws lambda update-event-source-mapping --uuid U --no-enabled --region eu-west-1",
        "`aws logs tail NAME` and `aws s3 cp A B`; no more",
        "aws ssm put-parameter --overwrite --name N --value 'a b'",
        "aws lambda put-function-concurrency --function-name F --reserved-concurrent-executions 7",
        "aws lambda update-event-source-mapping --uuid U --scaling-config MaximumConcurrency=N",
        "aws lambda update-event-source-mapping --uuid U --scaling-config '{}'",
        "aws sqs tag-queue --queue-url URL --tags runbook-automation=enabled",
        "aws cloudwatch put-metric-data --namespace N --metric-name M --value 1",
        "aws route53 change-resource-record-sets --hosted-zone-id Z --change-batch file://C.json",
        "aws lambda invoke --cli-binary-format raw-in-base64-out --function-name F --payload {} O",
        "stopped by AWS, with `aws lambda invoke` of something",
    ],
)
def test_a_command_that_works_is_left_alone(command: str) -> None:
    assert commands.check_commands("step", command) == []


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        ("import-verb", "ask.py", "import put_back"),
        ("import-verb", "oncall/guards.py", "from ask import handler"),
        ("import-outside", "ask.py", "from local.aws import start"),
        ("import-outside", "oncall/guards.py", "def f():\n    import cli"),
        ("import-library", "ask.py", "import requests"),
    ],
)
def test_an_import_against_the_layers_is_found(rule: str, path: str, source: str) -> None:
    sources = {"ask.py": "", "put_back.py": "", "oncall/guards.py": ""} | {path: source}

    [finding] = layers.check_imports(sources, {"boto3"}, {"cli", "local"})

    assert (finding.rule, finding.where) == (rule, path)


def test_imports_along_the_layers_are_left_alone() -> None:
    source = (
        "import json\nimport boto3\nfrom oncall import guards\nfrom . import times\n"
        "if TYPE_CHECKING:\n    from mypy_boto3_sqs import SQSClient\n"
    )

    assert layers.check_imports({"ask.py": source}, {"boto3"}, {"cli"}) == []


def test_what_ships_is_read_from_the_project_file() -> None:
    text = '[project]\ndependencies = ["slack-sdk>=3", "pyyaml[x]>=6", "jsonschema"]\n'

    assert layers.libraries(text) == {"boto3", "botocore", "slack_sdk", "yaml", "jsonschema"}


HANDLER = "def handler(event, context): ...\n"
FILES = {"raise_limit.py": HANDLER, "receive_decision.py": HANDLER, "oncall/step.py": ""}


@pytest.mark.parametrize(
    ("rule", "files"),
    [
        ("function-missing", FILES | {"extra.py": HANDLER}),
        ("handler-unknown", {"raise_limit.py": HANDLER}),
        ("handler-unknown", FILES | {"raise_limit.py": "def handel(): ..."}),
    ],
)
def test_functions_and_template_that_disagree_are_found(rule: str, files: dict[str, str]) -> None:
    assert {finding.rule for finding in layers.check_functions(files, SAM)} == {rule}


def test_functions_and_template_that_agree_are_left_alone() -> None:
    assigned = FILES | {"raise_limit.py": "handler = step(work)"}

    assert layers.check_functions(FILES, SAM) == []
    assert layers.check_functions(assigned, SAM) == []


SMALL = machines.load(HERE / "templates/machines")
FILLED = ("Resources", "Machine", "Properties", "DefinitionSubstitutions")


@pytest.mark.parametrize(
    ("rule", "deployed", "sam"),
    [
        ("machine-missing", SMALL | {"other": SMALL["small"]}, SAM),
        ("machine-unknown", {}, SAM),
        ("substitution-missing", SMALL, planted(SAM, FILLED, {})),
        (
            "substitution-unused",
            SMALL,
            planted(SAM, (*FILLED, "MoreArn"), {"Fn::GetAtt": ["RaiseLimit", "Arn"]}),
        ),
        (
            "substitution-target",
            SMALL,
            planted(SAM, (*FILLED, "RaiseLimitArn"), {"Fn::GetAtt": ["Topic", "Arn"]}),
        ),
        ("substitution-target", SMALL, planted(SAM, (*FILLED, "RaiseLimitArn"), "arn:x")),
    ],
)
def test_machines_and_template_that_disagree_are_found(rule: str, deployed: Any, sam: Any) -> None:
    assert {finding.rule for finding in layers.check_machines(deployed, sam)} == {rule}


@pytest.mark.parametrize(
    ("value", "rules"),
    [({"Ref": "ReportDays"}, set()), ({"Ref": "Topic"}, {"substitution-target"})],
)
def test_a_substitution_that_is_no_arn_must_be_a_parameter(value: Any, rules: set[str]) -> None:
    waits = planted(SMALL, ("small", "TimeoutSeconds"), "{% ${WaitSeconds} %}")
    sam = planted(SAM, (*FILLED, "WaitSeconds"), value)

    assert {finding.rule for finding in layers.check_machines(waits, sam)} == rules


def test_machines_and_template_that_agree_are_left_alone() -> None:
    assert layers.check_machines(SMALL, SAM) == []


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# The way, in\n\n```\n# Not a heading\n```\n", "utf-8")
    text = (
        "[a](page.md) [b](page.md#the-way-in) [c](#here) [d](https://example.com)\n# Here\n"
        "[bad](pag.md) [bad](page.md#not-a-heading)\n```\n[not a link](x.md)\n```\n"
    )
    start = tmp_path / "start.md"
    start.write_text(text, "utf-8")

    messages = [finding.message for finding in layers.check_links({start: text})]

    assert messages == ["pag.md leads nowhere", "page.md#not-a-heading: no such heading"]


# Put together here, so that this file does not hold what it looks for.
HOUSE_FLAWS = {
    "banner": "x = 1\n#" + " ----------\n",
    "machine-path": "see /" + "home/somebody/notes",
    "secret": "key = AKIA" + "ABCDEFGHIJKLMNOP",
    "registry": '"resolved": "' + 'https://registry.example.com/a.tgz"',
}
SECRETS = [
    "xoxb-" + "123456789-abcdef",
    "-----BEGIN RSA " + "PRIVATE KEY-----",
    "ghp_" + "a" * 36,
    "https://hooks.slack.com/" + "services/T0/B0/x",
]


@pytest.mark.parametrize("rule", HOUSE_FLAWS)
def test_what_must_not_be_tracked_is_found(rule: str) -> None:
    [finding] = house.check_text("file.py", f"first line\n{HOUSE_FLAWS[rule]}")

    assert finding.rule == rule
    assert finding.where.startswith("file.py:")


@pytest.mark.parametrize("secret", SECRETS, ids=lambda text: text[:12])
def test_each_kind_of_secret_is_found(secret: str) -> None:
    assert [finding.rule for finding in house.check_text("file", secret)] == ["secret"]


def test_what_may_be_tracked_is_left_alone() -> None:
    text = (
        "# A comment - with a dash\nAKIAIOSFODNN7EXAMPLE\nhttps://example.com/home/page\n"
        '"resolved": "https://registry.npmjs.org/ajv"\n| --- | ---- |\n'
    )

    assert house.check_text("file", text) == []


@pytest.mark.parametrize(
    ("module", "proved"),
    [
        (contracts, {rule for rule, _, _ in (*CONTRACT_FLAWS, *AGREEMENT_FLAWS)}),
        (commands, {"command"}),
    ],
)
def test_every_rule_has_a_planted_flaw(module: ModuleType, proved: set[str]) -> None:
    source = Path(str(module.__file__)).read_text("utf-8")
    rules = set(re.findall(r'Finding\(\s*"([a-z-]+)"', source))

    elsewhere = {"change-unverified", "number-unexplained"} if module is contracts else set()
    assert rules == proved | elsewhere
