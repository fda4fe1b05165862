"""Ask a service's URL as a client would, and its zone's name servers as a resolver would."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import urllib3

if TYPE_CHECKING:
    from oncall.service import Probe

_TIMEOUT = urllib3.Timeout(connect=3, read=5)
_TRIES = 2
"""One answer that is lost on the way does not make a service sick."""


def works(probe: Probe, address: str = "") -> bool:
    """Return whether a URL answers with its status; redirects are not followed.

    ``address``: where to connect in place of what the host's name resolves to; the name stays in
    the request and in what the certificate has to say.
    """
    return any(_answers(probe, address) for _ in range(_TRIES))


def _answers(probe: Probe, address: str) -> bool:
    url = urlsplit(probe.url)
    host = url.hostname or ""
    target = f"{url.path or '/'}{f'?{url.query}' if url.query else ''}"
    pool: urllib3.HTTPConnectionPool
    if url.scheme == "https":
        pool = urllib3.HTTPSConnectionPool(
            address or host,
            url.port or 443,
            timeout=_TIMEOUT,
            assert_hostname=host,
            server_hostname=host,
        )
    else:
        pool = urllib3.HTTPConnectionPool(address or host, url.port or 80, timeout=_TIMEOUT)
    with pool:
        try:
            answer = pool.request(
                "GET", target, headers={"Host": url.netloc}, retries=False, redirect=False
            )
        except urllib3.exceptions.HTTPError:
            return False
    return answer.status == probe.status
