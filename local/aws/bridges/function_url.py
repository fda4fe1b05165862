"""Gap: a function URL is an address at on.aws, which nothing on this machine resolves.

AWS: `https://<url-id>.lambda-url.<region>.on.aws/` answers from anywhere
(https://docs.aws.amazon.com/lambda/latest/dg/urls-configuration.html). Here the URL that the API
and CloudFormation return is the emulator's own path to it, so that it can be called as it stands.
An alias' URL has the alias' ARN, not the function's.
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import json
import os
from typing import Any

from ministack.services import lambda_svc

from local.aws.bridges.bridge import Bridge

BRIDGE = Bridge("function_url")
_PATH = "/_aws/lambda-url/"


@BRIDGE.replace(lambda_svc, "_create_function_url_config")
def _create_function_url_config(name: str, data: dict[str, Any], qualifier: str | None) -> Any:
    status, headers, body = _create(name, data, qualifier)
    if status != 201:  # noqa: PLR2004 -- HTTP: created
        return status, headers, body
    config = lambda_svc._function_urls[lambda_svc._url_config_key(name, qualifier)]
    url_id = _id(config["FunctionUrl"])
    config["FunctionArn"] += f":{qualifier}" if qualifier else ""
    config["FunctionUrl"] = f"http://127.0.0.1:{os.environ['GATEWAY_PORT']}{_PATH}{url_id}/"
    return status, headers, json.dumps(config).encode()


@BRIDGE.replace(lambda_svc, "_function_url_id")
def _function_url_id(url: str) -> str:
    _, ours, url_id = url.partition(_PATH)
    return url_id.strip("/") if ours else _id(url)


_create = BRIDGE.original(lambda_svc, "_create_function_url_config")
_id = BRIDGE.original(lambda_svc, "_function_url_id")
