import json

from oncall.incident import Incident
from oncall.reports import report_json, report_markdown
from tests.unit.incidents import LINKS, NASTY, a_change, an_entry, an_incident


def test_the_report_has_all_sections_and_no_markup_from_outside() -> None:
    text = report_markdown(
        an_incident(
            happened=NASTY,
            plan={"evidence": "```x"},
            changes=(a_change(name="a|b"),),
            entries=(an_entry(text="a | b <script>"),),
        ),
        LINKS,
    )
    for section in (
        "Overview",
        "What happened",
        "Timeline",
        "Decisions",
        "Changes",
        "Evidence",
        "Questions for the review",
    ):
        assert f"\n## {section}\n" in text
    assert "<script>" not in text
    assert "a \\| b" in text
    assert text.count("```") == 2


def test_the_report_shows_the_way_of_the_run_where_it_could_be_drawn() -> None:
    assert "](run.svg)" in report_markdown(an_incident(), LINKS, "run.svg")
    assert "![" not in report_markdown(an_incident(), LINKS)


def test_the_json_is_the_whole_incident() -> None:
    incident = an_incident(changes=(a_change(),), entries=(an_entry(),))
    document = json.loads(report_json(incident))
    assert document["changes"][0]["after"] == 60
    assert document["entries"][0]["text"] == "Better."
    assert set(document) == set(Incident.__dataclass_fields__)
