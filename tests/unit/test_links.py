from oncall.links import links_of
from tests.unit.incidents import EXECUTION, an_incident


def test_links_live_in_the_arns_partition_and_region() -> None:
    hosts = {
        "aws": "https://eu-west-1.console.aws.amazon.com/",
        "aws-cn": "https://eu-west-1.console.amazonaws.cn/",
        "aws-us-gov": "https://eu-west-1.console.amazonaws-us-gov.com/",
    }
    for partition, host in hosts.items():
        incident = an_incident(
            execution=EXECUTION.format(p=partition, r="eu-west-1"),
            trigger={"alarm": {"arn": f"arn:{partition}:cloudwatch:eu-west-1:1:alarm:a b<c"}},
        )
        links = links_of(incident, docs_url="https://d.example.com/{runbook}.md")
        assert links.execution.startswith(f"{host}states/home?region=eu-west-1#/v2/executions")
        assert links.alarm == f"{host}cloudwatch/home?region=eu-west-1#alarmsV2:alarm/a%20b%3Cc"
        assert links.runbook == "https://d.example.com/queue-saturation.md"


def test_a_link_that_cannot_be_made_is_left_out() -> None:
    links = links_of(an_incident(execution="x", trigger={}), docs_url="")
    assert links.named() == []


def test_a_storm_has_no_page() -> None:
    storm = an_incident(runbook="storm", trigger={"kind": "storm"})

    assert links_of(storm, docs_url="https://d.example.com/{runbook}.md").runbook == ""
