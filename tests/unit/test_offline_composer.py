"""What the offline composer makes of a prompt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.llm.composer import _catalog, compose


@pytest.mark.parametrize("setting", ["outdoors", "remote", "indoors"])
def test_the_named_setting_decides_before_any_theme(setting: str) -> None:
    """A remote team is not sent to the park, whatever else the prompt asks for."""
    places = {template.title: template.settings for template in _catalog()}
    for theme in ["trust", "creative ideas", "stress", "new hires", "strategy"]:
        chosen = compose(f"Something {setting} about {theme}")
        assert all(setting in places[activity["title"]] for activity in chosen)


@pytest.mark.parametrize(
    ("words", "minutes"),
    [("90 minutes", 90), ("2 hours", 120), ("a 1.5-hour slot", 90), ("45min", 45), ("3 minutes", 10), ("99 h", 480)],
)
def test_a_duration_is_read_in_minutes_and_hours(words: str, minutes: int) -> None:
    """Within ten minutes and a working day, the activity lasts as long as asked."""
    assert {activity["duration_minutes"] for activity in compose(f"We have {words}.")} == {minutes}


@pytest.mark.parametrize("words", ["40 people", "40 team members", '{"team_size": 40}', "member_count: 40"])
def test_a_group_size_is_read_from_words_and_from_data(words: str) -> None:
    """The activities suit the group that the prompt names, in prose or in the team's data."""
    for activity in compose(f"For {words.replace('team members', 'members')}"):
        assert activity["group_size"]["min"] <= 40 <= activity["group_size"]["max"]


@given(prompt=st.text(max_size=400), count=st.integers(1, 4))
def test_any_prompt_gets_as_many_sound_activities_as_asked(prompt: str, count: int) -> None:
    """Whatever is written, the titles differ, the texts are complete, and the answer is the same the next time."""
    chosen = compose(prompt, count=count)

    assert len({activity["title"] for activity in chosen}) == count
    for activity in chosen:
        assert len(activity["steps"]) == 3
        assert 10 <= activity["duration_minutes"] <= 480
        assert 0 < activity["group_size"]["min"] <= activity["group_size"]["max"]
        assert "{" not in activity["description"] + "".join(activity["steps"])
    assert chosen == compose(prompt, count=count)
