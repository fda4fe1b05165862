"""Gaps of what Lambda tells about a function: its policy, its aliases, its URLs.

MiniStack shows an empty policy where there is none, and the statements of aliases in the function's
own; ListAliases does not filter; ListFunctionUrlConfigs knows no missing function.

AWS: GetPolicy is about the function or about one qualifier, and answers ResourceNotFoundException
where there is no policy (https://docs.aws.amazon.com/lambda/latest/api/API_GetPolicy.html);
ListAliases takes a FunctionVersion (https://docs.aws.amazon.com/lambda/latest/api/API_ListAliases.html);
ListFunctionUrlConfigs answers ResourceNotFoundException, and pages
(https://docs.aws.amazon.com/lambda/latest/api/API_ListFunctionUrlConfigs.html).
"""
# ruff: noqa: SLF001 -- a bridge works on MiniStack's internals

import json
from typing import Any

from ministack.core.responses import error_response_json, json_response
from ministack.services import lambda_svc

from local.aws.bridges.bridge import Bridge

BRIDGE = Bridge("lambda_reads")
_OK = 200
_PAGE = "50"


@BRIDGE.replace(lambda_svc, "_get_policy")
def _get_policy(name: str, query: Any = None, path_qualifier: str | None = None) -> Any:
    status, headers, body = _policy(name, query, path_qualifier)
    if status != _OK:
        return status, headers, body
    answer = json.loads(body)
    policy = json.loads(answer["Policy"])
    if not lambda_svc._qualifier_from_path_or_query(path_qualifier, query):
        qualified = lambda_svc._func_arn(name) + ":"
        policy["Statement"] = [
            statement
            for statement in policy["Statement"]
            if not str(statement.get("Resource", "")).startswith(qualified)
        ]
    if not policy["Statement"]:
        return error_response_json(
            "ResourceNotFoundException", "The resource you requested does not exist.", 404
        )
    return json_response({**answer, "Policy": json.dumps(policy)})


@BRIDGE.replace(lambda_svc, "_list_aliases")
def _list_aliases(name: str, query: Any) -> Any:
    version = lambda_svc._qp_first(query, "FunctionVersion")
    if not version:
        return _aliases(name, query)
    status, headers, body = _aliases(name, {"MaxItems": ["1000000"]})
    if status != _OK:
        return status, headers, body
    found = [each for each in json.loads(body)["Aliases"] if each["FunctionVersion"] == version]
    return _page("Aliases", found, query)


@BRIDGE.replace(lambda_svc, "_list_function_url_configs")
def _list_function_url_configs(name: str, query: Any) -> Any:
    if error := lambda_svc._validate_function_qualifier_exists(name, None):
        return error
    _, _, body = _urls(name, query)
    return _page("FunctionUrlConfigs", json.loads(body)["FunctionUrlConfigs"], query)


def _page(key: str, items: list[Any], query: Any) -> Any:
    first = int(lambda_svc._qp_first(query, "Marker", "0"))
    last = first + int(lambda_svc._qp_first(query, "MaxItems", _PAGE))
    more = {"NextMarker": str(last)} if last < len(items) else {}
    return json_response({key: items[first:last], **more})


_policy = BRIDGE.original(lambda_svc, "_get_policy")
_aliases = BRIDGE.original(lambda_svc, "_list_aliases")
_urls = BRIDGE.original(lambda_svc, "_list_function_url_configs")
