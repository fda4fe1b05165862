"""Every story under tests/scenarios/<runbook>/, on the embedded AWS with the real template."""

from pathlib import Path

import pytest

from tests.scenarios import story
from tests.scenarios.coverage import Coverage
from tests.scenarios.play import Play
from tests.scenarios.world import Worlds


@pytest.mark.parametrize("path", story.STORIES, ids=story.story_id)
def test_story(path: Path, worlds: Worlds, coverage: Coverage) -> None:
    coverage.stories.add(story.story_id(path))
    told = story.read(path)
    world = worlds.get(told.given["settings"])
    play = Play(told, world)
    try:
        play.play()
    except BaseException as error:
        error.add_note(play.scene.so_far())
        worlds.throw_away(told.given["settings"])
        raise
