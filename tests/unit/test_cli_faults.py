import json
from typing import Any

import pytest
from botocore import exceptions as aws
from click.testing import CliRunner, Result

from cli import connection
from cli.app import main
from cli.faults import fault_of
from oncall.errors import BadInput, Denied


def client_error(code: str, message: str = "", status: int = 400) -> aws.ClientError:
    answer: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return aws.ClientError(answer, "Query")


def unreached(url: str) -> aws.EndpointConnectionError:
    return aws.EndpointConnectionError(endpoint_url=url)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BadInput("queue: it is missing."), 2, "queue: it is missing."),
        (Denied("mallory is not among the approvers."), 1, "mallory is not among"),
        (
            aws.ProfileNotFound(profile="nope"),
            2,
            "--profile: The config profile (nope) could not be found; there are",
        ),
        (ModuleNotFoundError("No x", name="ministack.core"), 1, "This needs ministack.core, which"),
        (aws.NoRegionError(), 2, "--region: You must specify a region."),
        (aws.InvalidRegionError(region_name="eu west"), 2, "--region: Provided region_name"),
        (aws.NoCredentialsError(), 2, "Unable to locate credentials. Give for example --profile"),
        (
            aws.UnauthorizedSSOTokenError(),
            2,
            "Sign in again, for example with aws sso login --profile prod.",
        ),
        (client_error("ExpiredTokenException"), 2, "The AWS credentials have expired"),
        (client_error("UnrecognizedClientException"), 2, "AWS does not take these credentials"),
        (
            client_error("AccessDeniedException", "User: x is not authorized"),
            2,
            "AWS denies Query: User: x is not authorized. Ask for that permission",
        ),
        (client_error("ResourceNotFoundException", "No table."), 1, "AWS refuses Query"),
        (
            unreached("https://dynamodb.eu-west-9.amazonaws.com/"),
            2,
            "--region: there is no Region 'eu-west-9'",
        ),
        (
            unreached("https://dynamodb.eu-west-1.amazonaws.com/"),
            1,
            "https://dynamodb.eu-west-1.amazonaws.com cannot be reached.",
        ),
        (unreached("http://127.0.0.1:1/"), 1, "http://127.0.0.1:1 cannot be reached."),
    ],
)
def test_an_error_is_a_sentence_and_an_exit_code(error: Exception, code: int, said: str) -> None:
    fault = fault_of(error)

    assert fault is not None
    assert said in fault.sentence
    assert "\n" not in fault.sentence
    assert fault.exit_code == code


@pytest.mark.parametrize(
    ("error", "passes", "reached"),
    [
        (client_error("ThrottlingException"), True, True),
        (client_error("ProvisionedThroughputExceededException"), True, True),
        (client_error("InternalServerError", status=500), True, True),
        (unreached("https://dynamodb.eu-west-1.amazonaws.com/"), True, False),
        (client_error("ExpiredToken"), False, True),
        (client_error("AccessDeniedException"), False, True),
        (client_error("ValidationException"), False, True),
    ],
)
def test_only_what_passes_by_itself_is_tried_again(
    error: Exception,
    passes: bool,  # noqa: FBT001 -- pytest passes them by name
    reached: bool,  # noqa: FBT001 -- as above
) -> None:
    fault = fault_of(error)

    assert fault is not None
    assert (fault.passes, fault.reached) == (passes, reached)


def test_a_fault_of_the_program_is_none_of_a_persons() -> None:
    assert fault_of(KeyError("x")) is None
    assert fault_of(ModuleNotFoundError("No x", name="cli.x")) is None


def runbook(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_without_json_nothing_is_on_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    def expired(_: object) -> None:
        raise client_error("ExpiredToken")

    monkeypatch.setattr(connection.Deployed, "open_incidents", expired)

    text = runbook("list", "--region", "eu-west-1")
    as_json = runbook("--output", "json", "list", "--region", "eu-west-1")

    assert (text.exit_code, text.stdout) == (2, "")
    assert text.stderr.startswith("runbook: The AWS credentials have expired (ExpiredToken).")
    assert as_json.exit_code == 2
    assert as_json.stderr == text.stderr
    assert json.loads(as_json.stdout) == {
        "error": "ClientError",
        "message": text.stderr.removeprefix("runbook: ").rstrip("\n"),
        "exit_code": 2,
    }


@pytest.mark.parametrize(
    "words",
    [
        ("watch", "--output", "json"),
        ("watch", "--output=json", "--nope", "x"),
        ("--output", "json", "nope"),
        ("list", "--limit", "x", "--output", "json"),
    ],
)
def test_wrong_arguments_are_a_json_document_too(words: tuple[str, ...]) -> None:
    ended = runbook(*words)

    assert ended.exit_code == 2
    told = json.loads(ended.stdout)
    assert told["error"] == "BadInput"
    assert told["message"] in ended.stderr.replace("\n", " ")


def test_a_fault_of_the_program_stays_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(connection.Deployed, "open_incidents", broken)

    assert isinstance(runbook("list").exception, KeyError)
