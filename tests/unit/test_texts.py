import html

from oncall.texts import MAX_SENTENCE, MORE, clean, code, escape, person


def test_a_name_that_only_looks_like_markup_is_no_person() -> None:
    assert person("U0ALICE> <!channel") == "U0ALICE&gt; &lt;!channel"


def test_text_keeps_its_meaning() -> None:
    assert html.unescape(escape("a < b && c > d")) == "a < b && c > d"
    assert code("a`b") == "`a'b`"


def test_what_is_cut_says_so() -> None:
    cut = clean("x" * 2_000)
    assert len(cut) <= MAX_SENTENCE
    assert cut.endswith(MORE)
