"""From an error to what a person reads: one sentence, an exit code, and whether it passes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from botocore import exceptions as aws
from botocore.session import Session

from cli.outcomes import BAD_INPUT, FAILED
from oncall.errors import BadInput, NotFound, OnCallError

# The codes of https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html and of the
# services' own pages of that name.
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_UNKNOWN = frozenset(
    {
        "AuthFailure",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_BUSY = frozenset(
    {"ProvisionedThroughputExceededException", "RequestLimitExceeded", "TooManyRequestsException"}
)
_BUSY_STATUS = frozenset({429, 500, 502, 503, 504})
_OURS = frozenset({"cli", "oncall"})
_SIGN_IN = "Sign in again, for example with aws sso login --profile prod."
_UNREACHED = (aws.ConnectionError, aws.HTTPClientError)
_SIGNED_OUT = (
    aws.CredentialRetrievalError,
    aws.LoginError,
    aws.PartialCredentialsError,
    aws.SSOError,
    aws.TokenRetrievalError,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong."""

    sentence: str
    exit_code: int = FAILED
    passes: bool = False
    """Whether asking AWS again may help."""
    reached: bool = True


def fault_of(error: BaseException) -> Fault | None:
    """Return what a person is told of an error; ``None`` for one that is the program's own."""
    match error:
        case BadInput() | NotFound():
            return Fault(str(error), BAD_INPUT)
        case OnCallError():
            return Fault(str(error))
        case ModuleNotFoundError(name=str(name)) if name.partition(".")[0] not in _OURS:
            return Fault(f"This needs {name}, which is not installed. Run it from a checkout.")
    return _of_aws(error)


def _of_aws(error: BaseException) -> Fault | None:
    match error:
        case aws.ProfileNotFound():
            return Fault(
                f"--profile: {_profile(error)} Give for example --profile prod.", BAD_INPUT
            )
        case aws.NoRegionError() | aws.InvalidRegionError():
            return Fault(
                f"--region: {_ended(error)} Give for example --region eu-west-1.", BAD_INPUT
            )
        case aws.NoCredentialsError():
            return Fault(f"{_ended(error)} Give for example --profile prod.", BAD_INPUT)
        case _ if isinstance(error, _SIGNED_OUT):
            return Fault(f"{_ended(error)} {_SIGN_IN}", BAD_INPUT)
        case aws.ClientError():
            return _refused(error)
        case _ if isinstance(error, _UNREACHED):
            return _unreached(error)
        case aws.BotoCoreError():
            return Fault(_ended(error))
    return None


def _refused(error: aws.ClientError) -> Fault:
    """Say what AWS has answered."""
    code = error.response["Error"]["Code"]
    message = error.response["Error"].get("Message", "")
    if code in _EXPIRED:
        return Fault(f"The AWS credentials have expired ({code}). {_SIGN_IN}", BAD_INPUT)
    if code in _UNKNOWN:
        return Fault(f"AWS does not take these credentials ({code}). {_SIGN_IN}", BAD_INPUT)
    if code in _DENIED:
        said = f"AWS denies {error.operation_name}: {_ended(message or code)}"
        return Fault(f"{said} Ask for that permission, or give another --profile.", BAD_INPUT)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if "Throttl" in code or code in _BUSY or status in _BUSY_STATUS:
        return Fault(f"AWS does not answer {error.operation_name} now ({code}).", passes=True)
    return Fault(f"AWS refuses {error.operation_name} ({code}): {_ended(message)}")


def _unreached(error: BaseException) -> Fault:
    """Say that nothing has answered, and whether that is because there is no such Region."""
    said = str(error)
    found = re.search(r"https?://[\w.:-]+", said)
    where = found[0] if found else "AWS"
    region = re.search(r"\.([a-z]{2,3}(?:-[a-z]+)+-\d+)\.", where)
    if region and region[1] not in _regions():
        return Fault(
            f"--region: there is no Region {region[1]!r}, as far as this SDK knows. "
            f"Give for example --region eu-west-1.",
            BAD_INPUT,
        )
    return Fault(
        f"{where} cannot be reached. Look at the network and at --region.",
        passes=True,
        reached=False,
    )


def _regions() -> set[str]:
    session = Session()
    partitions = session.get_available_partitions()
    return {one for name in partitions for one in session.get_available_regions("sts", name)}


def _profile(error: BaseException) -> str:
    """Name the profiles that there are."""
    there = Session().available_profiles
    listed = f"there are {', '.join(there[:20])}" if there else "there are none"
    return f"{str(error).removesuffix('.')}; {listed}."


def _ended(text: object) -> str:
    return f"{' '.join(str(text).split()).removesuffix('.')}."
