"""The signature of an SQS request is botocore's, whatever it signs."""

from datetime import UTC, datetime
from unittest.mock import patch

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from oncall.sqs_wire import _Endpoint

_word = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=40)
_secret = st.text(st.characters(codec="ascii", min_codepoint=33), min_size=1, max_size=60)
_endpoints = st.one_of(
    st.builds("https://sqs.{}.amazonaws.com".format, _word),
    st.just("https://sqs.eu-west-1.amazonaws.com:443"),
    st.builds("http://127.0.0.1:{}".format, st.integers(1, 65535)),
    st.builds("http://localhost:4566/{}".format, _word),
)


def _botocore_says(
    request: bytes, url: str, region: str, credentials: ReadOnlyCredentials, now: datetime
) -> str:
    """Sign the same headers and body by botocore; return its Authorization header."""
    head, body = request.split(b"\r\n\r\n", 1)
    headers = dict(line.split(":", 1) for line in head.decode().split("\r\n")[1:])
    signed = headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    # botocore writes the date and the token by itself.
    given_headers = {
        name: headers[name] for name in signed if name not in {"x-amz-date", "x-amz-security-token"}
    }
    again = AWSRequest("POST", url, headers=given_headers, data=body)
    signer = SigV4Auth(
        Credentials(credentials.access_key or "", credentials.secret_key or "", credentials.token),
        "sqs",
        region,
    )
    with patch("botocore.auth.get_current_datetime", return_value=now):
        signer.add_auth(again)
    assert headers["x-amz-date"] == again.headers["X-Amz-Date"]
    return str(again.headers["Authorization"])


@given(
    url=_endpoints,
    region=_word,
    action=_word,
    body=st.binary(max_size=2000),
    access_key=_word,
    secret=_secret,
    token=st.none() | _secret,
    now=st.datetimes(datetime(2020, 1, 1), datetime(2099, 1, 1)),  # noqa: DTZ001 -- as botocore's
)
def test_the_signature_is_botocores(
    *,
    url: str,
    region: str,
    action: str,
    body: bytes,
    access_key: str,
    secret: str,
    token: str | None,
    now: datetime,
) -> None:
    credentials = ReadOnlyCredentials(access_key, secret, token)
    then = now.replace(tzinfo=UTC)
    with patch("oncall.sqs_wire.time.gmtime", return_value=then.timetuple()):
        request = _Endpoint(url, region).request(action, body, credentials)
    head = request.split(b"\r\n\r\n", 1)[0].decode()
    said = _botocore_says(request, url, region, credentials, then)
    assert f"\r\nauthorization:{said}\r\n" in f"{head}\r\n"
    assert f"\r\ncontent-length:{len(body)}" in head


@pytest.mark.parametrize("other", [("a", "20270101"), ("b", "20260101")])
def test_a_cached_key_is_of_one_secret_and_one_day(other: tuple[str, str]) -> None:
    fresh = _Endpoint("http://127.0.0.1:1", "eu-west-1")
    used = _Endpoint("http://127.0.0.1:1", "eu-west-1")
    first = used._signing_key("a", "20260101")
    assert used._signing_key(*other) == fresh._signing_key(*other) != first
