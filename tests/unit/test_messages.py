import html
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local.block_kit import block_errors, texts_of, total_text
from oncall import messages
from oncall.incident import Change, Entry, Incident
from oncall.messages import Links

NOW = datetime(2026, 11, 23, 3, 2, 30, tzinfo=UTC)
AT = "2026-11-23T03:02:00.000Z"
DEADLINE = "2026-11-23T03:12:00.000Z"
EXECUTION = "arn:{p}:states:{r}:123456789012:execution:queue-saturation:orders-1"
LINKS = Links(execution="https://example.com/e", report="https://example.com/r")
NASTY = "<!channel> `rm` *b* \u202egnp.exe\n*What I need*  nothing & <https://evil.example|x> @here"


def an_incident(**fields: Any) -> Incident:
    return Incident(
        **{
            "id": "orders-1",
            "runbook": "queue-saturation",
            "title": "A queue fills up",
            "target": "arn:aws:sqs:us-east-1:123456789012:orders",
            "target_name": "orders",
            "mode": "auto",
            "trigger": {"kind": "alarm", "alarm": {"name": "deep", "arn": "arn:alarm"}},
            "execution": EXECUTION.format(p="aws", r="us-east-1"),
            "fence": 1,
            "started_at": AT,
            "updated_at": AT,
            "happened": "orders: 12,900 wait. The cap is reached.",
            "doing": "Raised the cap. It goes back.",
            "need": "Nothing.",
            **fields,
        }
    )


def a_change(**fields: Any) -> Change:
    return Change(
        **{
            "lever": "reserved-concurrency",
            "resource": "arn:f",
            "name": "worker cap",
            "before": 20,
            "after": 60,
            "why": "busy",
            "undo": "aws lambda put-function-concurrency …",
            "expires_at": DEADLINE,
            "state": "applied",
            **fields,
        }
    )


def asking(**fields: Any) -> Incident:
    ask = {"id": "q1", "deadline": DEADLINE, "state": "waiting", "level": 1, "people": 1}
    plan = {
        "changes": [
            {"name": "worker cap", "before": 20, "after": None, "why": "busy", "lever": "x"}
        ]
    }
    return an_incident(**{"phase": "waiting", "ask": ask, "plan": plan, "mode": "ask", **fields})


def an_entry(seq: int = 1, kind: str = "verified", text: str = "Better.", **fields: Any) -> Entry:
    return Entry(**{"id": f"e{seq}", "kind": kind, "text": text, "at": AT, "seq": seq, **fields})


def shown(message: messages.Message) -> str:
    """All that people see, markup and all."""
    return "\n".join([message.text, *(json.dumps(b, ensure_ascii=False) for b in message.blocks)])


def labels(incident: Incident) -> list[str]:
    blocks = messages.header(incident, LINKS).blocks
    return [e["text"]["text"] for b in blocks if b["type"] == "actions" for e in b["elements"]]


def test_the_first_line_says_what_is_and_what_i_do() -> None:
    assert (
        messages.headline(an_incident(phase="acting")) == "🔵 orders: 12,900 wait. Raised the cap."
    )


def test_while_it_waits_the_first_line_asks_with_a_clock_time() -> None:
    line = messages.headline(asking())
    assert line == "🟠 Your decision by 03:12 UTC, please. orders: 12,900 wait."


def test_the_target_is_named_once() -> None:
    assert messages.headline(an_incident(happened="It is full.", doing="")).count("orders") == 1


def test_an_old_question_does_not_ask_after_the_run_went_on() -> None:
    incident = replace(asking(), phase="handed_over")
    assert messages.headline(incident).startswith("🔴")
    assert labels(incident) == []


def test_each_state_has_its_buttons() -> None:
    assert labels(asking()) == ["Approve", "Reject", "Take over"]
    assert labels(an_incident(phase="acting")) == ["Take over", "Abort and put back"]
    assert labels(an_incident(phase="watching")) == ["Take over", "Abort and put back"]
    assert labels(an_incident(phase="putting_back")) == ["Take over"]
    assert labels(an_incident(phase="acting", stop={"kind": "abort"})) == []
    closed = an_incident(status="closed", phase="closed", outcome="resolved")
    assert labels(closed) == []


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


def test_a_name_that_only_looks_like_markup_is_no_person() -> None:
    assert messages.person("U0ALICE> <!channel") == "U0ALICE&gt; &lt;!channel"


def test_a_storm_counts_what_it_gathers_and_keeps_it_out_of_the_thread() -> None:
    gathered = tuple(
        an_entry(n, "joined", "joined", data={"incident": f"i{n % 2}"}) for n in range(1, 4)
    )
    storm = an_incident(entries=gathered)
    assert "2 incidents at once." in messages.headline(storm)
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


def test_text_keeps_its_meaning() -> None:
    assert html.unescape(messages.escape("a < b && c > d")) == "a < b && c > d"
    assert messages.code("a`b") == "`a'b`"


def test_what_is_cut_says_so() -> None:
    cut = messages.clean("x" * 2_000)
    assert len(cut) <= messages.MAX_SENTENCE
    assert cut.endswith(messages.MORE)


def test_too_much_is_trimmed_to_slacks_limits() -> None:
    sections = [messages._section("\n".join(["y" * 100] * 40)) for _ in range(60)]
    fitted = messages.within_limits(sections)
    assert block_errors(fitted) == []
    assert total_text(fitted) <= messages.MAX_TOTAL
    assert messages.MORE in fitted[0]["text"]["text"]


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
        links = messages.links_of(incident, docs_url="https://d.example.com/{runbook}.md")
        assert links.execution.startswith(f"{host}states/home?region=eu-west-1#/v2/executions")
        assert links.alarm == f"{host}cloudwatch/home?region=eu-west-1#alarmsV2:alarm/a%20b%3Cc"
        assert links.runbook == "https://d.example.com/queue-saturation.md"


def test_a_link_that_cannot_be_made_is_left_out() -> None:
    links = messages.links_of(an_incident(execution="x", trigger={}), docs_url="")
    assert links.named() == []


def test_dedup_keys_stay_apart_when_they_are_cut() -> None:
    one = messages.capped_key("a" * 300 + "1")
    assert len(one) <= 255
    assert one != messages.capped_key("a" * 300 + "2")
    by_hand = an_incident(trigger={"kind": "hand"})
    assert messages.dedup_key(by_hand) == "runbook:arn:aws:sqs:us-east-1:123456789012:orders"


def actions(
    incident: Incident, sent: tuple[str, ...] = (), opened: dict[str, bool] | None = None
) -> list[tuple[str, str]]:
    return [(p.action, p.dedup_key) for p in messages.pages(incident, sent, opened or {})]


DECIDED = {"decision": "approve", "by": "U0ALICE"}


CHANGED = Entry(
    id="changed-1",
    kind="changed",
    text="Set worker cap from 20 to 60: it is at its cap and healthy.",
    at="2026-11-23T03:02:07.000Z",
    seq=2,
)


def test_acting_alone_wakes_nobody() -> None:
    assert actions(an_incident(entries=(CHANGED,))) == [("change", "")]
    assert actions(an_incident(entries=(CHANGED,)), sent=("change",)) == []


@pytest.mark.parametrize("kind", ["alarm", "hand", "schedule"])
@pytest.mark.parametrize("outcome", ["", "resolved", "failed"])
def test_the_first_change_is_told_beside_the_services_incidents(kind: str, outcome: str) -> None:
    second = replace(CHANGED, id="changed-2", text="Set another.", at=DEADLINE, seq=4)
    over = {"status": "closed", "outcome": outcome, "closed_at": DEADLINE} if outcome else {}
    entries = (an_entry(1, "opened", "Started."), CHANGED, an_entry(3), second)
    incident = an_incident(trigger={"kind": kind}, entries=entries, **over)
    (page,) = messages.pages(incident, [], {})
    assert (page.id, page.action, page.dedup_key) == ("change", "change", "")
    assert page.payload["summary"] == (
        "orders, runbook queue-saturation: Set worker cap from 20 to 60: it is at its cap and "
        "healthy."
    )
    assert page.payload["timestamp"] == CHANGED.at
    assert page.payload["source"] == incident.target
    assert page.payload["custom_details"]["incident"] == "orders-1"


@pytest.mark.parametrize("mode", ["auto", "ask"])
def test_where_nothing_was_changed_there_is_no_change_to_tell(mode: str) -> None:
    kinds = ("opened", "planned", "intended", "verified", "put_back", "closed")
    entries = tuple(an_entry(seq, kind) for seq, kind in enumerate(kinds, start=1))
    assert actions(an_incident(mode=mode, entries=entries)) == []


def test_a_mend_is_shown_as_one_that_stays() -> None:
    mended = a_change(name="consumer", before=True, after=True)
    text = shown(messages.header(an_incident(changes=(mended,)), LINKS))
    assert "• consumer: *on* for good. Undo:" in text
    assert "back by" not in text


def test_observing_says_nothing_to_pagerduty() -> None:
    assert actions(an_incident(mode="observe", entries=(an_entry(kind="paged"),))) == []


def test_a_question_triggers_and_the_next_level_rings_elsewhere() -> None:
    assert actions(asking()) == [("trigger", "arn:alarm")]
    second = asking(ask={**asking().ask, "id": "q2", "level": 2})
    (page,) = messages.pages(second, ["ask-q1"], {"arn:alarm": False})
    assert (page.dedup_key, page.escalated) == ("arn:alarm#level-2", True)


def test_a_decision_acknowledges_but_half_a_decision_does_not() -> None:
    opened = {"arn:alarm": False}
    decided = asking(phase="acting", entries=(an_entry(kind="decided", data=DECIDED),))
    assert actions(decided, opened=opened) == [("acknowledge", "arn:alarm")]
    half = asking(entries=(an_entry(kind="decided", data={**DECIDED, "missing": 1}),))
    assert actions(half, sent=("ask-q1",), opened=opened) == []


def test_a_page_after_a_decision_rings_again() -> None:
    entries = (an_entry(1, "decided", data=DECIDED), an_entry(2, "paged", "Stuck."))
    incident = asking(phase="handed_over", entries=entries)
    assert actions(incident, opened={"arn:alarm": False}) == [
        ("acknowledge", "arn:alarm"),
        ("trigger", "arn:alarm#e2"),
    ]
    later = {"arn:alarm": False, "arn:alarm#e2": False}
    assert actions(incident, sent=("ack-e1-arn:alarm", "paged-e2"), opened=later) == []


def test_only_resolved_resolves() -> None:
    opened = {"arn:alarm": False, "arn:alarm#level-2": True}
    for outcome, expected in (
        ("resolved", [("resolve", "arn:alarm"), ("resolve", "arn:alarm#level-2")]),
        ("aborted", []),
        ("ineffective", []),
    ):
        closed = an_incident(status="closed", outcome=outcome, closed_at=AT)
        assert actions(closed, sent=("change",), opened=opened) == expected


def test_a_storm_pages_once_and_resolves_its_own_page() -> None:
    child = asking(parent="storm-1")
    assert actions(child) == [("trigger", "storm:storm-1")]
    done = an_incident(parent="storm-1", status="closed", outcome="resolved", closed_at=AT)
    assert actions(done, opened={"storm:storm-1": False}) == []
    storm = an_incident(
        id="storm-1",
        trigger={"kind": "storm"},
        status="closed",
        outcome="resolved",
        closed_at=AT,
        entries=(an_entry(kind="joined", data={"incident": "i1"}),),
    )
    assert actions(storm) == [("resolve", "storm:storm-1")]


def test_a_page_says_what_was_changed_and_how_to_undo_it() -> None:
    paged = an_entry(kind="paged", text="It did not help.", severity="error")
    (page,) = messages.pages(an_incident(entries=(paged,), changes=(a_change(),)), ["change"], {})
    assert page.payload["severity"] == "error"
    assert page.payload["summary"] == "orders: It did not help."
    assert page.payload["custom_details"]["changes"][0]["undo"].startswith("aws lambda")


def test_the_report_has_all_sections_and_no_markup_from_outside() -> None:
    text = messages.report_markdown(
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


def test_the_json_is_the_whole_incident() -> None:
    incident = an_incident(changes=(a_change(),), entries=(an_entry(),))
    document = json.loads(messages.report_json(incident))
    assert document["changes"][0]["after"] == 60
    assert document["entries"][0]["text"] == "Better."
    assert set(document) == set(Incident.__dataclass_fields__)
