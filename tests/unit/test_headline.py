from dataclasses import replace

from oncall.headline import behind, headline
from oncall.incident import Entry
from tests.unit.incidents import an_incident, asking


def test_the_first_line_says_what_is_and_what_i_do() -> None:
    assert headline(an_incident(phase="acting")) == "🔵 orders: 12,900 wait. Raised the cap."


def test_while_it_waits_the_first_line_asks_with_a_clock_time() -> None:
    line = headline(asking())
    assert line == "🟠 Your decision by 03:12 UTC, please. orders: 12,900 wait."


def test_the_target_is_named_once() -> None:
    assert headline(an_incident(happened="It is full.", doing="")).count("orders") == 1


def test_an_old_question_does_not_ask_after_the_run_went_on() -> None:
    incident = replace(asking(), phase="handed_over")
    assert headline(incident).startswith("🔴")


def test_slack_is_behind_until_it_has_the_last_entry_and_nothing_is_owed() -> None:
    last = 7
    incident = an_incident(entries=(Entry(id="closed", kind="closed", text="Over.", seq=last),))
    # An edit of the header as it was before the end may arrive after it: its time says nothing.
    early = {"slack": {"seq": last - 1}, "owed": False}
    assert behind(incident, early)
    assert behind(incident, {"slack": {"seq": last}, "owed": True})
    assert not behind(incident, {"slack": {"seq": last}, "owed": False})
    assert not behind(replace(incident, parent="storm"), early)
    assert behind(incident, {})
