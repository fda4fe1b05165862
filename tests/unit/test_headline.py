from dataclasses import replace

from oncall.headline import headline
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
