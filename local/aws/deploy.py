"""Package a SAM template and create or update its stack, as `sam package` and `sam deploy` do."""

import hashlib
import io
import json
import os
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import yaml
from botocore.exceptions import ClientError
from samtranslator.yaml_helper import yaml_parse

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_s3 import S3Client

_POLL_SECONDS = 0.05
_TIMEOUT_SECONDS = 300
_FUNCTION = "AWS::Serverless::Function"
_LAYER = "AWS::Serverless::LayerVersion"
_MACHINE = "AWS::Serverless::StateMachine"
_NOT_SHIPPED = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"}

_zips: dict[tuple[str, str], bytes] = {}


class StackError(RuntimeError):
    """A stack could not be created, updated or deleted; the message names the resource and why."""


def deploy(
    session: boto3.Session,
    stack_name: str,
    template_path: Path,
    parameters: Mapping[str, str],
    *,
    build_dir: Path | None,
    tags: Mapping[str, str],
) -> dict[str, str]:
    """Create or update the stack and return its outputs; raises StackError."""
    template = package(session, template_path, build_dir)
    s3: S3Client = session.client("s3")
    body = json.dumps(template).encode()
    url = _upload(s3, _bucket(session), body, "template")
    cloudformation: CloudFormationClient = session.client("cloudformation")
    if _status(cloudformation, stack_name) == "ROLLBACK_COMPLETE":
        delete_stack(session, stack_name)
    exists = bool(_status(cloudformation, stack_name))
    start = cloudformation.update_stack if exists else cloudformation.create_stack
    try:
        start(
            StackName=stack_name,
            TemplateURL=f"{s3.meta.endpoint_url}/{url.removeprefix('s3://')}",
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
            ],
            Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
    except ClientError as error:
        if "No updates are to be performed" not in str(error):
            raise StackError(f"{stack_name}: {error}") from error
    stack = _settled(cloudformation, stack_name)
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


def delete_stack(session: boto3.Session, stack_name: str) -> None:
    """Delete the stack and wait until it is gone; raises StackError."""
    cloudformation: CloudFormationClient = session.client("cloudformation")
    cloudformation.delete_stack(StackName=stack_name)
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while (status := _status(cloudformation, stack_name)) not in ("", "DELETE_COMPLETE"):
        if status == "DELETE_FAILED" or time.monotonic() > deadline:
            raise StackError(f"{stack_name}: {status}: {_reason(cloudformation, stack_name)}")
        time.sleep(_POLL_SECONDS)


def package(session: boto3.Session, template_path: Path, build_dir: Path | None) -> dict[str, Any]:
    """Upload what the template names by local path; return it with S3 locations in their place."""
    template: dict[str, Any] = yaml_parse(template_path.read_text())
    built = _built(build_dir)
    s3: S3Client = session.client("s3")
    bucket = _bucket(session)
    here = template_path.parent
    shared = template.get("Globals", {}).get("Function", {}).get("CodeUri")
    for logical_id, resource in template.get("Resources", {}).items():
        properties = resource.setdefault("Properties", {})
        match resource["Type"]:
            case "AWS::Serverless::Function" if "InlineCode" not in properties:
                code = built.get(logical_id) or _local(here, properties.get("CodeUri", shared))
                if code:
                    properties["CodeUri"] = _upload(s3, bucket, _zip(code), "code")
            case "AWS::Serverless::LayerVersion":
                code = built.get(logical_id) or _local(here, properties.get("ContentUri"))
                if code:
                    properties["ContentUri"] = _upload(s3, bucket, _zip(code), "layer")
            case "AWS::Serverless::StateMachine":
                if machine := _local(here, properties.get("DefinitionUri")):
                    definition = json.dumps(yaml.safe_load(machine.read_text()))
                    properties["DefinitionUri"] = _upload(
                        s3, bucket, definition.encode(), "machine"
                    )
    return template


def _built(build_dir: Path | None) -> dict[str, Path]:
    """Return each function's and layer's folder under what `sam build` wrote."""
    if build_dir is None or not (build_dir / "template.yaml").exists():
        return {}
    template = yaml_parse((build_dir / "template.yaml").read_text())
    found: dict[str, Path] = {}
    for logical_id, resource in template.get("Resources", {}).items():
        name = {_FUNCTION: "CodeUri", _LAYER: "ContentUri"}.get(resource["Type"], "")
        if folder := _local(build_dir, resource.get("Properties", {}).get(name)):
            found[logical_id] = folder
    return found


def _local(here: Path, uri: Any) -> Path | None:
    if not isinstance(uri, str) or uri.startswith("s3://"):
        return None
    path = here / uri
    if not path.exists():
        raise StackError(f"The template names {uri!r}, but {path} does not exist.")
    return path


def _zip(code: Path) -> bytes:
    if code.is_file():
        return code.read_bytes()
    files = sorted(_files(code))
    stamp = hashlib.sha256()
    for path, name in files:
        stat = path.stat()
        stamp.update(f"{name}:{stat.st_mtime_ns}:{stat.st_size}\n".encode())
    key = (str(code.resolve()), stamp.hexdigest())
    if key not in _zips:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for path, name in files:
                # A fixed date makes equal content an equal archive, so its upload is skipped.
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.external_attr = (path.stat().st_mode & 0o777) << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
        _zips[key] = buffer.getvalue()
    return _zips[key]


def _files(code: Path) -> Iterator[tuple[Path, str]]:
    for folder, folders, names in os.walk(code, followlinks=True):
        folders[:] = [name for name in folders if name not in _NOT_SHIPPED]
        for name in names:
            path = Path(folder, name)
            yield path, str(path.relative_to(code))


def _bucket(session: boto3.Session) -> str:
    sts = session.client("sts")
    bucket = f"sam-artifacts-{sts.get_caller_identity()['Account']}-{session.region_name}"
    s3: S3Client = session.client("s3")
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError:
        if session.region_name == "us-east-1":
            s3.create_bucket(Bucket=bucket)
        else:
            s3.create_bucket(
                Bucket=bucket,
                CreateBucketConfiguration={"LocationConstraint": session.region_name},  # type: ignore[typeddict-item]  # any Region
            )
    return bucket


def _upload(s3: "S3Client", bucket: str, body: bytes, kind: str) -> str:
    key = f"{kind}/{hashlib.sha256(body).hexdigest()}"
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError:
        s3.put_object(Bucket=bucket, Key=key, Body=body)
    return f"s3://{bucket}/{key}"


def _status(cloudformation: "CloudFormationClient", stack_name: str) -> str:
    try:
        stack = cloudformation.describe_stacks(StackName=stack_name)["Stacks"][0]
    except ClientError:
        return ""
    return stack["StackStatus"]


def _settled(cloudformation: "CloudFormationClient", stack_name: str) -> Any:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        stack = cloudformation.describe_stacks(StackName=stack_name)["Stacks"][0]
        status = stack["StackStatus"]
        if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            return stack
        if status.endswith(("_FAILED", "ROLLBACK_COMPLETE")):
            raise StackError(f"{stack_name}: {status}: {_reason(cloudformation, stack_name)}")
        time.sleep(_POLL_SECONDS)
    raise StackError(f"{stack_name}: still {status} after {_TIMEOUT_SECONDS} s")


def _reason(cloudformation: "CloudFormationClient", stack_name: str) -> str:
    events = cloudformation.describe_stack_events(StackName=stack_name)["StackEvents"]
    for event in sorted(events, key=lambda event: event["Timestamp"]):
        if event.get("ResourceStatus", "").endswith("_FAILED"):
            return (
                f"{event['LogicalResourceId']} ({event['ResourceType']}): "
                f"{event.get('ResourceStatusReason', 'no reason given')}"
            )
    return "no failed resource among its events"
