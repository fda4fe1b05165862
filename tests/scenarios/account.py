"""What became of a story's dead letters, letter by letter."""

from collections import Counter
from collections.abc import Iterator, Sequence

from oncall.archive import Archived
from tests.scenarios.targets.mail import Mail, Seen

_KEPT = ("quarantine", "drop")
"""What only the archive holds afterwards."""

type Arrived = Sequence[tuple[str, Seen]]
"""MessageId and letter, in order."""


def account(
    mail: Mail,
    arrived: Arrived,
    left: Sequence[str],
    archived: Sequence[Archived],
    *,
    unarchived: bool = False,
) -> int:
    """See that no letter is lost, changed or out of order; return how many are there twice.

    ``left`` are the MessageIds of those in the dead-letter queue. ``unarchived``: their owner
    forbids copies, so that none may be archived, and SQS itself moves them without a mark.
    """
    assert not (unarchived and archived), f"{len(archived)} letters are archived against the tag"
    for one in archived:
        key = one.letter["MessageId"]
        assert mail.read(one.letter) == mail.dead[key], f"{key} is archived as another letter"
    missing = mail.dead.keys() - {one.letter["MessageId"] for one in archived} - set(left)
    assert unarchived or not missing, (
        f"{len(missing)} letters have left the queue and are in no archive"
    )
    _as_they_were(arrived, mail, marked=not unarchived)
    disorder = list(_disorder(arrived))
    assert not disorder, f"out of order: {disorder}"
    alive = Counter(letter.token for key, letter in arrived if key not in mail.returned)
    alive += Counter(mail.dead[key].token for key in left)
    kept = {mail.read(one.letter).token for one in archived if one.then in _KEPT}
    lost = set(mail.tokens) - alive.keys() - kept
    assert not lost, f"lost: {sorted(lost)}"
    sent = Counter((letter.token, letter.mark) for _, letter in arrived)
    return max(_more_than_once(alive), _more_than_once(sent))


def _more_than_once(counts: Counter[str] | Counter[tuple[str, str]]) -> int:
    return counts.total() - len(counts)


def _as_they_were(arrived: Arrived, mail: Mail, *, marked: bool) -> None:
    """See that what has arrived is what had died, and one replay older where it is marked."""
    was = {_content(letter): letter for letter in mail.dead.values()}
    for key, letter in arrived:
        found = was.get(_content(letter))
        assert found, f"{letter.token} is not what it was"
        assert letter.group == found.group, f"{letter.token} is in another group"
        assert not marked or letter.mark or key.startswith("call "), f"{letter.token} is not marked"


def _content(letter: Seen) -> tuple[str, ...]:
    return letter.token, letter.body, letter.unmarked, letter.trace


def _disorder(arrived: Arrived) -> Iterator[tuple[str, str]]:
    """Return pairs of a group's letters that one run has sent in another order than they died."""
    last: dict[tuple[str, str], str] = {}
    for _, letter in arrived:
        run = letter.mark.partition(";")[2].partition(";")[0]
        before = last.get((letter.group, run), "")
        if letter.group and letter.token < before:
            yield before, letter.token
        last[letter.group, run] = letter.token
