"""Receive a decision: a signed click in Slack by function URL, or a direct invoke.

Direct: ``{"incident", "decision": "approve|reject|abort|take_over", "by", "reason"?, "ask"?}``, or
``{"redeliver": "<incident>"}`` to tell Step Functions what it has not been told. A button of the
dashboard's widget invokes it in the name of whoever clicks, with ``widgetContext``; that is taken
only where the stack's parameter ``DashboardButtons`` is on, and answered with HTML.

Slack's signature is verified over the raw body before anything is read from it
(https://docs.slack.dev/authentication/verifying-requests-from-slack), and the answer has to be
there within three seconds, so what the person is told goes to the ``response_url``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from slack_sdk.errors import SlackClientError
from slack_sdk.signature import Clock, SignatureVerifier
from slack_sdk.webhook import WebhookClient

from oncall.dashboard import notice
from oncall.decisions import (
    DECISIONS,
    EXAMPLE,
    Decision,
    decide,
    parse_click,
    parse_decision,
    redeliver,
)
from oncall.errors import BadInput, Denied, OnCallError
from oncall.secret_values import SecretValues
from oncall.step import logged, logger, services
from oncall.texts import escape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oncall.services import Services

_KEEP_SIGNATURES = timedelta(minutes=15)
"""Slack's requests are good for five minutes; longer than any clock is wrong."""
_FEEDBACK_SECONDS = 1
"""What is left of Slack's three seconds once the decision is recorded."""
_BUTTONS_OFF = "The dashboard's buttons are off; decide in Slack or by aws lambda invoke."
_SLACK_HOOKS = "https://hooks.slack.com"
_Response = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SlackSettings:
    """How clicks are checked; an empty ARN means that none is accepted."""

    secret: str
    """Secrets Manager: ``{"signing_secret", …}``."""
    api_url: str
    """Another Slack than slack.com; its origin may be answered too."""

    @classmethod
    def from_environment(cls) -> SlackSettings:
        """Read the settings."""
        return cls(
            secret=os.environ.get("SLACK_SECRET_ARN", ""),
            api_url=os.environ.get("SLACK_API_URL", ""),
        )


class _Now(Clock):
    """The product's clock, as the verifier asks for it."""

    def __init__(self, aws: Services) -> None:
        self._aws = aws

    def now(self) -> float:
        """Return seconds since 1970."""
        return self._aws.clock().timestamp()


@cache
def _secrets() -> SecretValues:
    return SecretValues(services())


def handler(event: Mapping[str, Any], _context: object) -> Mapping[str, Any] | str:
    """Take a click or a direct call."""
    if "http" in event.get("requestContext", {}):
        return take_click(event, services(), SlackSettings.from_environment(), _secrets())
    if "redeliver" in event:
        incident = str(event["redeliver"])
        with logged(incident=incident):
            return asdict(redeliver(incident, services()))
    if "widgetContext" in event:
        return take_dashboard(event, services(), on=os.environ.get("DASHBOARD_BUTTONS") == "on")
    decision = parse_decision(event)
    with logged(incident=decision.incident, decision=decision.kind):
        return asdict(decide(decision, services()))


def take_dashboard(event: Mapping[str, Any], aws: Services, *, on: bool) -> str:
    """Decide what was clicked on the dashboard; HTML that says what came of it."""
    try:
        with logged(incident=str(event.get("incident", "")), function="take_dashboard"):
            if not on:
                raise Denied(_BUTTONS_OFF)
            answer = decide(parse_click(event), aws)
    except OnCallError as error:
        return notice(f"Nothing is decided. {error}", good=False)
    return notice(answer.text, good=answer.recorded)


def take_click(
    event: Mapping[str, Any], aws: Services, settings: SlackSettings, secrets: SecretValues
) -> _Response:
    """Verify, decide, tell the person; 401 for what is not Slack's, 200 for all that is."""
    body = raw_body(event)
    headers = {str(k).lower(): str(v) for k, v in (event.get("headers") or {}).items()}
    if not settings.secret or body is None:
        return _unauthorized()
    signing_secret = secrets.get(settings.secret).get("signing_secret", "")
    if not signing_secret or not genuine(body, headers, signing_secret, _Now(aws)):
        return _unauthorized()
    signature = hashlib.sha256(headers["x-slack-signature"].encode()).hexdigest()
    if not aws.store.first_time(signature, _KEEP_SIGNATURES):
        logger.warning("a signed request came twice")
        return _unauthorized()
    try:
        decision, response_url = read_click(body)
    except BadInput as error:
        logger.warning("not a click of ours", extra={"reason": str(error)})
        return {"statusCode": 200, "body": ""}
    text = _outcome(lambda: decide(decision, aws).text, decision)
    _tell(response_url, text, settings)
    return {"statusCode": 200, "body": ""}


def _unauthorized() -> _Response:
    return {"statusCode": 401, "body": "unauthorized"}


def raw_body(event: Mapping[str, Any]) -> bytes | None:
    """Return the body's bytes as they were signed; ``None`` when they cannot be told."""
    body = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        return str(body).encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return None


def genuine(body: bytes, headers: Mapping[str, str], signing_secret: str, clock: Clock) -> bool:
    """Whether Slack signed exactly this, within the last five minutes.

    ``SignatureVerifier`` (slack_sdk 3.47) raises ``ValueError`` on a timestamp that is no number,
    ``TypeError`` on a signature that is not ASCII, and ``UnicodeDecodeError`` on a body that is not
    UTF-8: none of them is Slack's.
    """
    try:
        verifier = SignatureVerifier(signing_secret, clock)
        return verifier.is_valid(
            body=body,
            timestamp=headers.get("x-slack-request-timestamp", ""),
            signature=headers.get("x-slack-signature", ""),
        )
    except (ValueError, TypeError, OverflowError):
        return False


def read_click(body: bytes) -> tuple[Decision, str]:
    """Read Slack's ``block_actions``. Raises ``BadInput`` for anything but one of our buttons."""
    try:
        payload = json.loads(parse_qs(body.decode())["payload"][0])
        action = payload["actions"][0]
        value = json.loads(action["value"])
        decision = Decision(
            incident=str(value["incident"]),
            kind=str(value["decision"]),
            by=str(payload["user"]["id"]),
            via="slack",
            ask=str(value["ask"]),
        )
        response_url = str(payload.get("response_url", ""))
        kind = payload["type"]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"payload: it is no click on a button of ours. Give {EXAMPLE}.") from error
    if kind != "block_actions" or decision.kind not in DECISIONS or not decision.incident:
        raise BadInput(f"payload: it is no decision. Give {EXAMPLE}.")
    return decision, response_url


def _outcome(work: Callable[[], str], decision: Decision) -> str:
    """Return what to tell the person; Slack gets its 200 whatever happened."""
    try:
        with logged(incident=decision.incident, decision=decision.kind):
            return work()
    except OnCallError as error:
        return str(error)
    except Exception:  # noqa: BLE001 -- logged by the frame; the person must hear of it
        return (
            "That did not work, nothing is certain to be recorded. Look at the thread, and try "
            f"`runbook {decision.kind.replace('_', '')} {decision.incident}`."
        )


def _tell(response_url: str, text: str, settings: SlackSettings) -> None:
    """Tell the person who clicked, and nobody else; the decision stands without it."""
    if not _may_answer(response_url, settings):
        logger.warning("response_url is not Slack's")
        return
    try:
        answer = WebhookClient(response_url, timeout=_FEEDBACK_SECONDS, retry_handlers=[]).send(
            text=escape(text), response_type="ephemeral", replace_original=False
        )
    except (SlackClientError, OSError, ValueError) as error:
        logger.warning("could not tell the person", extra={"reason": type(error).__name__})
        return
    if answer.status_code // 100 != 2:  # noqa: PLR2004 -- HTTP's 2xx
        logger.warning("could not tell the person", extra={"reason": answer.status_code})


def _may_answer(response_url: str, settings: SlackSettings) -> bool:
    """Whether a URL is Slack's own: the payload is signed, but the address leaves our network."""
    try:
        given, ours = urlsplit(response_url), urlsplit(settings.api_url)
    except ValueError:
        return False
    origin = f"{given.scheme}://{given.netloc}"
    return origin == _SLACK_HOOKS or (
        bool(settings.api_url) and origin == f"{ours.scheme}://{ours.netloc}"
    )
