import json
import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from local.block_kit import block_errors, texts_of, total_text
from oncall import messages
from oncall.headline import headline
from oncall.incident import Incident
from oncall.texts import MORE
from tests.unit.incidents import (
    DEADLINE,
    LINKS,
    NASTY,
    NOW,
    a_change,
    an_entry,
    an_incident,
    asking,
)


def shown(message: messages.Message) -> str:
    """All that people see, markup and all."""
    return "\n".join([message.text, *(json.dumps(b, ensure_ascii=False) for b in message.blocks)])


def labels(incident: Incident) -> list[str]:
    blocks = messages.header(incident, LINKS).blocks
    return [e["text"]["text"] for b in blocks if b["type"] == "actions" for e in b["elements"]]


def test_each_state_has_its_buttons() -> None:
    assert labels(asking()) == ["Approve", "Reject", "Take over"]
    assert labels(an_incident(phase="acting")) == ["Take over", "Abort and put back"]
    assert labels(an_incident(phase="watching")) == ["Take over", "Abort and put back"]
    assert labels(an_incident(phase="putting_back")) == ["Take over"]
    assert labels(an_incident(phase="acting", stop={"kind": "abort"})) == []
    closed = an_incident(status="closed", phase="closed", outcome="resolved")
    assert labels(closed) == []


def test_an_old_question_has_no_buttons_after_the_run_went_on() -> None:
    assert labels(replace(asking(), phase="handed_over")) == []


def test_a_button_names_ids_alone_and_asks_before_it_changes_production() -> None:
    blocks = messages.header(asking(), LINKS).blocks
    approve = next(b for b in blocks if b["type"] == "actions")["elements"][0]
    assert json.loads(approve["value"]) == {
        "incident": "orders-1",
        "ask": "q1",
        "decision": "approve",
    }
    assert approve["style"] == "primary"
    assert "worker cap 20 → none" in approve["confirm"]["text"]["text"]


def test_the_deadline_stands_in_what_i_need_even_if_the_step_forgot_it() -> None:
    text = shown(messages.header(asking(need="Say yes."), LINKS))
    assert "Say yes. Answer by <!date^" in text
    assert "03:12 UTC>" in text


def test_times_in_sentences_become_the_readers_clock() -> None:
    text = shown(messages.header(an_incident(need=f"Wait until {DEADLINE}."), LINKS))
    assert "Wait until <!date^1795403520^{time}|03:12 UTC>." in text


def test_progress_is_a_bar_with_a_clock_time() -> None:
    incident = an_incident(
        phase="watching", progress={"done": 0.61, "text": "640 a minute", "eta": DEADLINE}
    )
    assert "▓▓▓▓▓▓░░░░ 61%  640 a minute, done about <!date^" in shown(
        messages.header(incident, LINKS)
    )
    assert "▓" not in shown(messages.header(incident, LINKS, progress=False))


def test_what_is_changed_is_listed_with_its_undo_until_it_is_put_back() -> None:
    line = "• worker cap: 20 → *60*, back by "
    standing = shown(messages.header(an_incident(changes=(a_change(),)), LINKS))
    assert line in standing
    assert "Undo: `aws lambda" in standing
    put_back = an_incident(changes=(a_change(state="put_back"),))
    assert line not in shown(messages.header(put_back, LINKS))


def test_a_decision_names_the_person_and_a_claimed_identity_is_marked() -> None:
    by_slack = an_entry(kind="decided", data={"decision": "approve", "by": "U0ALICE"})
    claimed = an_entry(
        kind="decided",
        data={"decision": "abort", "by": "arn:aws:iam::1:user/carol", "via": "invoke"},
    )
    text = shown(messages.header(an_incident(entries=(by_slack, claimed)), LINKS))
    assert "Approved by <@U0ALICE> <!date^" in text
    assert "Aborted by carol <!date^" in text
    assert "(by invoke)" in text


def test_a_storm_counts_what_it_gathers_and_keeps_it_out_of_the_thread() -> None:
    gathered = tuple(
        an_entry(n, "joined", "joined", data={"incident": f"i{n % 2}"}) for n in range(1, 4)
    )
    storm = an_incident(entries=gathered)
    assert "2 incidents at once." in headline(storm)
    assert messages.replies(storm, 0, LINKS, mention="", now=NOW) == []


def test_replies_join_what_waits_and_leave_out_intentions() -> None:
    entries = (an_entry(1), an_entry(2, "intended", "Secret."), an_entry(3, text="Good."))
    replies = messages.replies(an_incident(entries=entries), 0, LINKS, mention="", now=NOW)
    assert [(r.text, r.last_seq) for r in replies] == [("Better.\nGood.", 3)]
    assert messages.replies(an_incident(entries=entries), 3, LINKS, mention="", now=NOW) == []


def test_many_entries_become_several_replies_within_the_limit() -> None:
    entries = tuple(an_entry(n, text="x" * 900) for n in range(1, 10))
    replies = messages.replies(an_incident(entries=entries), 0, LINKS, mention="", now=NOW)
    assert len(replies) == 3
    assert all(len(r.text) <= messages.MAX_REPLY for r in replies)
    assert replies[-1].last_seq == 9


def test_late_news_says_when_it_was() -> None:
    entry = an_entry(at="2026-11-23T02:40:00.000Z")
    (reply,) = messages.replies(an_incident(entries=(entry,)), 0, LINKS, mention="", now=NOW)
    assert reply.text.startswith("<!date^1795401600^{time}|02:40 UTC> Better.")


def test_a_warning_calls_people_although_all_went_well() -> None:
    warned = an_entry(kind="warned", text="The next failover could not go through.")
    incident = an_incident(entries=(warned,), status="closed", outcome="resolved")
    on = "<!subteam^S0123>"
    (reply,) = messages.replies(incident, 0, LINKS, mention=on, now=NOW)
    assert reply.broadcast
    assert reply.text.startswith(on)


def test_someone_is_mentioned_only_when_needed_and_only_by_configuration() -> None:
    asked = an_entry(kind="asked", text="May I?")
    on = "<!subteam^S0ONCALL>"
    (needed,) = messages.replies(asking(entries=(asked,)), 0, LINKS, mention=on, now=NOW)
    assert needed.text == f"{on} May I?"
    assert needed.broadcast
    answered = asking(entries=(asked,), phase="acting")
    (told,) = messages.replies(answered, 0, LINKS, mention=on, now=NOW)
    assert on not in told.text
    (odd,) = messages.replies(asking(entries=(asked,)), 0, LINKS, mention="<!everyone>!", now=NOW)
    assert odd.text == "May I?"


def test_a_second_line_from_outside_cannot_pass_for_one_of_ours() -> None:
    paged = an_entry(kind="paged", text="Stuck: x\nUndo: curl evil")
    (reply,) = messages.replies(an_incident(entries=(paged,)), 0, LINKS, mention="", now=NOW)
    assert reply.text == "Stuck: x\n| Undo: curl evil"


@given(st.text(max_size=400) | st.just(NASTY) | st.just(NASTY * 30) | st.just("&" * 5_000))
@settings(deadline=None, max_examples=50)
def test_no_text_from_outside_becomes_markup_or_breaks_a_limit(text: str) -> None:
    change = a_change(name=text, before=text, after=text, undo=text)
    planned = {"name": text, "before": text, "after": text, "why": text, "lever": text}
    incident = asking(
        id=text[:80],  # an execution name has no more
        runbook=text,
        target_name=text,
        happened=text,
        doing=text,
        need=text,
        summary=text,
        plan={"changes": [planned] * 12},
        changes=(change,) * 12,
        entries=(
            an_entry(1, text=text),
            an_entry(2, "decided", text, data={"decision": "reject", "by": text, "reason": text}),
            an_entry(3, "changed", text, data={"undo": text}),
        ),
    )
    for message in (
        messages.header(incident, LINKS),
        messages.child(incident),
        messages.plain(incident, LINKS),
        messages.bare(incident),
        *messages.replies(incident, 0, LINKS, mention="", now=NOW),
    ):
        blocks = list(message.blocks)
        assert block_errors(blocks) == []
        assert total_text(blocks) <= messages.MAX_TOTAL
        assert len(message.text) <= 4_000
        assert all(part.get("verbatim") for part in texts_of(blocks))
        marked = [message.text, *(part["text"] for part in texts_of(blocks))]
        for found in re.findall(r"<[^>]*>?", "\n".join(marked)):
            assert re.fullmatch(
                r"<!date\^\d+\^\{time\}\|\d\d:\d\d UTC>|<https://[^|<>]+\|[A-Z][\w ]+>|<@[UW]\w+>",
                found,
            )
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x09\x0b-\x1f]", "\n".join(marked))
        json.dumps(blocks).encode()
        message.text.encode()


def test_too_much_is_trimmed_to_slacks_limits() -> None:
    sections = [messages._section("\n".join(["y" * 100] * 40)) for _ in range(60)]
    fitted = messages.within_limits(sections)
    assert block_errors(fitted) == []
    assert total_text(fitted) <= messages.MAX_TOTAL
    assert MORE in fitted[0]["text"]["text"]


def test_a_mend_is_shown_as_one_that_stays() -> None:
    mended = a_change(name="consumer", before=True, after=True)
    text = shown(messages.header(an_incident(changes=(mended,)), LINKS))
    assert "• consumer: *on* for good. Undo:" in text
    assert "back by" not in text


def test_a_game_day_says_so_and_mentions_nobody() -> None:
    drill = {"kind": "hand", "alarm": {}, "game_day": True}
    asked = an_entry(1, "asked", "Shall I?")
    incident = asking(trigger=drill, entries=(asked,))
    (reply,) = messages.replies(incident, 0, LINKS, mention="<!subteam^S0ONCALL>", now=NOW)
    assert reply.broadcast
    assert "GAME DAY: " in reply.text
    assert "<!subteam" not in reply.text
    assert messages.header(incident, LINKS).text.startswith("🟠 GAME DAY, ")
    only = an_incident(mode="observe", trigger=drill)
    assert messages.header(only, LINKS).text.startswith("🔵 GAME DAY, observing, ")
