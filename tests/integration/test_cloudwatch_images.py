"""The pictures that the embedded CloudWatch draws of its metrics, and the widgets it refuses."""

import base64
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session
from PIL import Image

from local.aws import AwsAccount, EmbeddedAws
from local.aws.cloudwatch import CloudWatch, Settings, put_metric_history

REGION = "us-east-1"
START = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
BLUE, GREEN, RED = (0, 0, 255), (0, 128, 0), (255, 0, 0)


@pytest.fixture(scope="module", autouse=True)
def cloudwatch(embedded_aws: EmbeddedAws) -> Iterator[CloudWatch]:
    running = CloudWatch(Settings(resolution_seconds=60))
    running.install(embedded_aws)
    yield running
    running.uninstall()


def show(aws: AwsAccount, value: float, *, queue: str = "orders", region: str = REGION) -> None:
    """Let a metric have one value for the hour that the pictures show."""
    points = [((START + timedelta(minutes=m)).timestamp(), value) for m in range(60)]
    put_metric_history(aws.account, region, "shop", "Depth", {"Queue": queue}, points)


def widget(**more: Any) -> dict[str, Any]:
    metric = ["shop", "Depth", "Queue", "orders", {"color": "#0000ff", "stat": "Maximum"}]
    return {
        "metrics": [metric],
        "start": "2026-11-23T03:00:00.000Z",
        "end": "2026-11-23T04:00:00.000Z",
        "period": 60,
        "width": 400,
        "height": 300,
        "yAxis": {"left": {"min": 0, "max": 100}},
        "legend": {"position": "hidden"},
        **more,
    }


def asked(aws: AwsAccount, given: Any) -> bytes:
    text = given if isinstance(given, str) else json.dumps(given)
    picture: bytes = aws.client("cloudwatch").get_metric_widget_image(MetricWidget=text)[
        "MetricWidgetImage"
    ]
    return picture


def picture(aws: AwsAccount, **more: Any) -> Image.Image:
    return Image.open(io.BytesIO(asked(aws, widget(**more)))).convert("RGB")


def places(image: Image.Image, colour: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Return where a colour is, as far as smooth edges leave it."""

    def near(pixel: Any) -> bool:
        return all(abs(a - b) < 60 for a, b in zip(pixel, colour, strict=True))

    wide, high = image.size
    return [(x, y) for y in range(high) for x in range(wide) if near(image.getpixel((x, y)))]


def rows(image: Image.Image, colour: tuple[int, int, int]) -> set[int]:
    return {y for _, y in places(image, colour)}


def columns(image: Image.Image, colour: tuple[int, int, int]) -> set[int]:
    return {x for x, _ in places(image, colour)}


def test_the_picture_has_the_size_and_shows_the_data(aws: AwsAccount) -> None:
    show(aws, 20)
    low = picture(aws)
    assert low.size == (400, 300)
    show(aws, 80)
    high = picture(aws)
    (low_y,), (high_y,) = ({round(sum(r) / len(r))} for r in (rows(low, BLUE), rows(high, BLUE)))
    plot = 300 - 26 - 44
    assert low_y - high_y == pytest.approx(0.6 * plot, abs=3)
    assert max(columns(high, BLUE)) - min(columns(high, BLUE)) > 300


def test_a_metric_without_data_is_no_error(aws: AwsAccount) -> None:
    assert places(picture(aws), BLUE) == []


def test_a_line_breaks_where_there_is_no_data(aws: AwsAccount) -> None:
    points = [
        ((START + timedelta(minutes=m)).timestamp(), 50.0) for m in range(60) if not 20 < m < 40
    ]
    put_metric_history(aws.account, REGION, "shop", "Depth", {"Queue": "orders"}, points)
    drawn = columns(picture(aws), BLUE)
    gap = [x for x in range(min(drawn), max(drawn)) if x not in drawn]
    assert len(gap) == pytest.approx(320 / 60 * 20, abs=8)


def test_thresholds_and_moments_are_where_they_belong(aws: AwsAccount) -> None:
    annotations = {
        "horizontal": [{"value": 25, "color": "#ff0000"}],
        "vertical": [{"value": "2026-11-23T03:30:00Z", "color": "#008000", "label": "changed"}],
    }
    image = picture(aws, annotations=annotations)
    top, bottom = 44 + 3 * 14, 300 - 26
    level = rows(image, RED)
    assert level
    assert sum(level) / len(level) == pytest.approx(bottom - 0.25 * (bottom - top), abs=2)
    line = {x for x, y in places(image, GREEN) if y > top + 20}
    assert sum(line) / len(line) == pytest.approx(64 + 0.5 * (400 - 16 - 64), abs=2)


def test_a_moment_after_the_end_widens_the_picture(aws: AwsAccount) -> None:
    show(aws, 50)
    later = [{"value": "2026-11-23T05:00:00Z", "color": "#008000"}]
    image = picture(aws, annotations={"vertical": later})
    assert max(columns(image, BLUE)) < 64 + 0.55 * 320
    assert max(columns(image, GREEN)) == pytest.approx(384, abs=2)


def test_metrics_of_another_region_and_expressions_are_drawn(aws: AwsAccount) -> None:
    show(aws, 20, region="eu-west-1")
    metrics = [
        ["shop", "Depth", "Queue", "orders", {"id": "m1", "region": "eu-west-1", "visible": False}],
        ["...", {"color": "#0000ff", "region": "eu-west-1"}],
    ]
    assert 0 < len(rows(picture(aws, metrics=metrics), BLUE)) < 6
    show(aws, 20)
    metrics = [
        ["shop", "Depth", "Queue", "orders", {"id": "m1", "visible": False}],
        [{"expression": "m1 * 4", "id": "e1", "color": "#0000ff"}],
    ]
    high = rows(picture(aws, metrics=metrics), BLUE)
    assert max(high) < 44 + 0.3 * (300 - 26 - 44)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{", "not valid JSON"),
        ({"width": 10}, "'metrics' is a required property"),
        (widget(metrics=[]), "/metrics"),
        (widget(metrics=[["shop"]]), "/metrics/0"),
        (widget(metrics=[["shop", "Depth", "Queue"]]), "pairs of dimensions"),
        (widget(metrics=[["shop", "Depth", {"color": "red"}]]), "/metrics/0/color"),
        (widget(metrics=[["shop", "Depth", {"stat": "Median"}]]), "Median"),
        (widget(metrics=[["shop", "Depth"]] * 101), "/metrics"),
        (widget(width=2001), "/width"),
        (widget(height=0), "/height"),
        (widget(period=7), "/period"),
        (widget(period=90), "/period"),
        (widget(timezone="UTC"), "/timezone"),
        (widget(view="pie"), "/view"),
        (widget(colour="x"), "colour"),
        (widget(annotations={"vertical": [{"label": "no value"}]}), "/annotations/vertical/0"),
        (widget(annotations={"vertical": [{"value": "tomorrow"}]}), "/annotations/vertical/0"),
        (widget(annotations={"horizontal": [{"value": "5"}]}), "/annotations/horizontal/0"),
        (widget(start="2026-11-23T05:00:00Z"), "start must be before end"),
        (widget(title="x" * 110_000), "larger than 100 KB"),
    ],
)
def test_a_widget_against_the_structure_is_refused(aws: AwsAccount, given: Any, said: str) -> None:
    with pytest.raises(ClientError, match=said) as refused:
        asked(aws, given)
    assert refused.value.response["Error"]["Code"] == "ValidationError"


def test_bands_relative_times_and_defaults_are_taken(aws: AwsAccount) -> None:
    band = [{"value": "-PT2H", "label": "begin"}, {"value": "-PT1H", "label": "end"}]
    given = {"metrics": [["shop", "Depth"]], "annotations": {"vertical": [band]}}
    image = Image.open(io.BytesIO(asked(aws, given)))
    assert image.size == (600, 400)
    assert image.format == "PNG"


def test_the_query_protocol_answers_in_base64(aws: AwsAccount) -> None:
    form = {"Action": "GetMetricWidgetImage", "MetricWidget": json.dumps(widget())}
    request = AWSRequest("POST", aws.endpoint_url + "/", data=form)
    SigV4Auth(Credentials(aws.account, "test"), "monitoring", REGION).add_auth(request)
    reply = URLLib3Session().send(request.prepare())
    text = str(reply.text).split("<MetricWidgetImage>")[1].split("<")[0]
    assert base64.b64decode(text).startswith(b"\x89PNG")


def test_the_bridge_is_needed(aws: AwsAccount, cloudwatch: CloudWatch) -> None:
    cloudwatch.uninstall()
    try:
        with pytest.raises(ClientError, match="Unknown action"):
            asked(aws, widget())
    finally:
        cloudwatch.install()
