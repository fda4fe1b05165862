"""The incidents table as ``template.yaml`` has it, without the stack around it."""

from pathlib import Path
from typing import Any

from boto3 import Session
from samtranslator.yaml_helper import yaml_parse

TABLE = "incidents"
_TEMPLATE = Path(__file__).parents[2] / "template.yaml"
_SHAPE = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode")


def make_table(session: Session) -> Any:
    """Make the table and return it."""
    resources = yaml_parse(_TEMPLATE.read_text("utf-8"))["Resources"]
    properties = resources["IncidentsTable"]["Properties"]
    return session.resource("dynamodb").create_table(
        TableName=TABLE, **{name: properties[name] for name in _SHAPE}
    )
