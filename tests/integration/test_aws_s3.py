import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from samtranslator.yaml_helper import yaml_parse

from local.aws import AwsAccount
from local.aws.bridges import cloudformation, s3_kms

type Deploy = Callable[..., dict[str, str]]

_ROOT = Path(__file__).parents[2]
_CODE = """
    import boto3
    from botocore.exceptions import ClientError

    def handler(event, context):
        try:
            answer = getattr(boto3.client("s3"), event["method"])(**event["arguments"])
        except ClientError as error:
            return error.response["Error"]["Code"]
        return [found["Key"] for found in answer.get("Contents", [])] or "allowed"
"""
_CALLER = """
    Key:
      Type: AWS::KMS::Key
      Properties:
        KeyPolicy:
          Version: "2012-10-17"
          Statement:
            - Effect: Allow
              Principal: {AWS: !Sub "arn:aws:iam::${AWS::AccountId}:root"}
              Action: kms:*
              Resource: "*"
    Plain: {Type: AWS::S3::Bucket}
    Encrypted:
      Type: AWS::S3::Bucket
      Properties:
        BucketEncryption:
          ServerSideEncryptionConfiguration:
            - BucketKeyEnabled: true
              ServerSideEncryptionByDefault:
                SSEAlgorithm: aws:kms
                KMSMasterKeyID: !GetAtt Key.Arn
    Caller:
      Type: AWS::Serverless::Function
      Properties:
        Policies: [{Version: "2012-10-17", Statement: [%s]}]
"""
_OBJECTS = (
    '{Effect: Allow, Action: ["s3:PutObject", "s3:GetObject"],'
    ' Resource: [!Sub "${Plain.Arn}/replays/*", !Sub "${Encrypted.Arn}/replays/*"]}'
)
_LIST = (
    '{Effect: Allow, Action: "s3:ListBucket", Resource: !GetAtt Plain.Arn,'
    ' Condition: {StringLike: {"s3:prefix": "replays/*"}}}'
)
_BY_KEY = (
    "{Effect: Allow, Resource: !GetAtt Key.Arn, Action: [%s],"
    ' Condition: {StringEquals: {"kms:ViaService": !Sub "s3.${AWS::Region}.amazonaws.com"}}}'
)


def _call(aws: AwsAccount, function: str, method: str, **arguments: Any) -> Any:
    event = json.dumps({"method": method, "arguments": arguments})
    answer = aws.client("lambda").invoke(FunctionName=function, Payload=event)
    return json.loads(answer["Payload"].read())


def test_objects_and_lists_can_be_granted_by_prefix(aws: AwsAccount, stack: Deploy) -> None:
    names = stack(_CALLER % f"{_OBJECTS},{_LIST}", _CODE)
    caller, bucket = names["Caller"], names["Plain"]
    aws.client("s3").put_object(Bucket=bucket, Key="incidents/1", Body=b"x")

    def put(key: str) -> Any:
        return _call(aws, caller, "put_object", Bucket=bucket, Key=key, Body="x")

    def get(key: str) -> Any:
        return _call(aws, caller, "get_object", Bucket=bucket, Key=key)

    def listed(**prefix: str) -> Any:
        return _call(aws, caller, "list_objects_v2", Bucket=bucket, **prefix)

    assert put("replays/a/1") == put("replays/a/2") == "allowed"
    assert put("incidents/2") == "AccessDenied"
    assert get("incidents/1") == "AccessDenied"
    assert listed(Prefix="replays/a/") == ["replays/a/1", "replays/a/2"]
    assert listed(Prefix="incidents/") == "AccessDenied"
    assert listed() == "AccessDenied"


@pytest.mark.parametrize(
    ("granted", "put", "get", "multipart"),
    [
        ('"kms:GenerateDataKey", "kms:Decrypt"', "allowed", "allowed", "allowed"),
        ('"kms:GenerateDataKey"', "allowed", "AccessDenied", "AccessDenied"),
        ('"kms:Decrypt"', "AccessDenied", "allowed", "AccessDenied"),
    ],
)
def test_an_encrypted_bucket_needs_its_key(  # noqa: PLR0917 -- a table of cases
    aws: AwsAccount, stack: Deploy, granted: str, put: str, get: str, multipart: str
) -> None:
    names = stack(_CALLER % f"{_OBJECTS},{_BY_KEY % granted}", _CODE)
    aws.client("s3").put_object(Bucket=names["Encrypted"], Key="replays/1", Body=b"x")
    which = {"Bucket": names["Encrypted"], "Key": "replays/1"}
    caller = names["Caller"]
    assert _call(aws, caller, "put_object", **which, Body="y") == put
    assert _call(aws, caller, "get_object", **which) == get
    assert _call(aws, caller, "create_multipart_upload", **which) == multipart
    plain = {**which, "Bucket": names["Plain"]}
    assert _call(aws, caller, "put_object", **plain, Body="y") == "allowed"
    key = aws.client("kms").describe_key(KeyId=names["Key"])["KeyMetadata"]["Arn"]
    recorded = [call for call in aws.calls.by_role()[names["CallerRole"]] if call.service == "kms"]
    assert {call.resource for call in recorded} == {key}
    assert {call.action for call in recorded} == {"kms:GenerateDataKey", "kms:Decrypt"}


def test_a_key_granted_for_another_service_is_none(aws: AwsAccount, stack: Deploy) -> None:
    by_sqs = (_BY_KEY % '"kms:GenerateDataKey"').replace('"s3.', '"sqs.')
    names = stack(_CALLER % f"{_OBJECTS},{by_sqs}", _CODE)
    which = {"Bucket": names["Encrypted"], "Key": "replays/1", "Body": "x"}
    assert _call(aws, names["Caller"], "put_object", **which) == "AccessDenied"
    with s3_kms.BRIDGE.off():
        assert _call(aws, names["Caller"], "put_object", **which) == "allowed"


def test_the_report_bucket_of_the_template_is_encrypted_by_the_stacks_key(
    aws: AwsAccount, tmp_path: Path
) -> None:
    whole = yaml_parse((_ROOT / "template.yaml").read_text())
    wanted = {
        "Resources": {name: whole["Resources"][name] for name in ("Key", "ReportBucket")},
        "Outputs": {
            "Bucket": {"Value": {"Ref": "ReportBucket"}},
            "Key": {"Value": {"Fn::GetAtt": ["Key", "Arn"]}},
        },
    }
    path = tmp_path / "template.yaml"
    path.write_text(json.dumps(wanted))
    outputs = aws.deploy("reports", path)
    put = aws.client("s3").put_object(Bucket=outputs["Bucket"], Key="x", Body=b"x")
    assert (put["ServerSideEncryption"], put["SSEKMSKeyId"]) == ("aws:kms", outputs["Key"])
    with cloudformation.BRIDGE.off():
        outputs = aws.deploy("without", path)
    put = aws.client("s3").put_object(Bucket=outputs["Bucket"], Key="x", Body=b"x")
    assert "ServerSideEncryption" not in put
