"""The composer picks three activities from a catalog by the words of a prompt.

It ranks by setting and theme, and fits size and time.

The same prompt always gives the same answer, and another team's prompt most likely another. The prompt is data: its
words choose among our texts, and none of them is repeated in the answer.
"""

import re
import tomllib
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypedDict

# Enough for the requirements and the team; a megabyte of text would cost more than the call may.
_READ_CHARS = 6_000

_THEMES = {
    "communication": "communication communicate communicating listening feedback talk speaking misunderstandings",
    "trust": "trust safety vulnerability conflict conflicts honest honesty tension",
    "creativity": "creative creativity innovation innovative ideas brainstorm art music design imagination",
    "problem_solving": "problem problems solving puzzle puzzles strategy strategic logic escape analytical engineering",
    "collaboration": "collaboration collaborate collaborative cooperation teamwork silos together cross functional",
    "onboarding": "new onboarding icebreaker introductions strangers joiners hires merged",
    "energy": "fun energy energizer morale competitive game games sport sports active playful",
    "wellbeing": "stress wellbeing relax calm mindfulness burnout tired rest",
    "leadership": "lead leads leader leaders leadership decision decisions managers ownership",
    "culture": "culture cultures values diversity inclusion food cooking international",
}
_SETTINGS = {
    "remote": "remote remotely online virtual virtually zoom distributed video hybrid",
    "outdoors": "outdoor outdoors outside park nature forest hike hiking garden",
    "indoors": "indoor indoors office inside room workshop",
}
_WORD = re.compile(r"[a-z]+")
_DURATION = re.compile(r"(\d{1,3}(?:\.\d)?)[\s-]*(minutes?|mins?|hours?|hrs?|h)\b")
_SIZE = re.compile(
    r"(\d{1,3})[\s-]*(?:people|persons?|participants|members|engineers|developers|colleagues|employees)\b"
    r"|(?:team|group)[ _]?size\W{1,4}(\d{1,3})\b|member_?count\W{1,4}(\d{1,3})\b"
)


class GroupSize(TypedDict):
    """The number of people that an activity suits."""

    min: int
    max: int


class Activity(TypedDict):
    """One activity, in the shape that the generation stage asks for."""

    title: str
    description: str
    duration_minutes: int
    group_size: GroupSize
    materials: list[str]
    steps: list[str]
    objective: str


@dataclass(frozen=True)
class _Template:
    title: str
    settings: frozenset[str]
    themes: frozenset[str]
    minutes: int
    group: tuple[int, int]
    materials: list[str]
    objective: str
    description: str
    steps: list[str]

    def fit(self, *, minutes: int | None, people: int | None) -> Activity:
        """Write the activity out for a duration and a group, or for its own usual ones."""
        duration = minutes or self.minutes
        warmup, debrief = max(1, duration // 6), max(1, duration // 4)
        smallest, largest = self.group
        values = {
            "size": f"the {people} people" if people else "the team",
            "warmup": warmup,
            "main": max(1, duration - warmup - debrief),
            "debrief": debrief,
        }
        return {
            "title": self.title,
            "description": self.description.format_map(values),
            "duration_minutes": duration,
            "group_size": {"min": min(smallest, people or smallest), "max": max(largest, people or largest)},
            "materials": self.materials,
            "steps": [step.format_map(values) for step in self.steps],
            "objective": self.objective,
        }


@cache
def _catalog() -> tuple[_Template, ...]:
    data = tomllib.loads((Path(__file__).parent / "catalog.toml").read_text(encoding="utf-8"))
    return tuple(
        _Template(
            **{
                **entry,
                "settings": frozenset(entry["settings"]),
                "themes": frozenset(entry["themes"]),
                "group": tuple(entry["group"]),
            }
        )
        for entry in data["activity"]
    )


@cache
def _meanings() -> dict[str, str]:
    """Every known word, with the theme or setting that it stands for."""
    return {word: name for group in (_THEMES, _SETTINGS) for name, words in group.items() for word in words.split()}


def compose(prompt: str, *, count: int = 3) -> list[Activity]:
    """Return activities that suit the words of a prompt, best first, each from another template."""
    text = prompt[:_READ_CHARS].lower()
    meanings = _meanings()
    wanted = {meanings[word] for word in set(_WORD.findall(text)) if word in meanings}
    settings = wanted & _SETTINGS.keys()
    seed = zlib.crc32(text.encode())

    def rank(item: tuple[int, _Template]) -> tuple[int, int, int]:
        position, template = item
        # Setting before themes: a remote team cannot meet in a park, however well the theme fits.
        fits = not settings or bool(template.settings & settings)
        variety = (seed >> (position % 24)) * 2654435761 % 997
        return (fits, len(template.themes & wanted), variety)

    ranked = sorted(enumerate(_catalog()), key=rank, reverse=True)
    minutes, people = _minutes(text), _people(text)
    return [template.fit(minutes=minutes, people=people) for _, template in ranked[:count]]


def _minutes(text: str) -> int | None:
    found = _DURATION.search(text)
    if found is None:
        return None
    amount = float(found[1]) * (60 if found[2].startswith("h") else 1)
    return min(480, max(10, round(amount)))


def _people(text: str) -> int | None:
    found = _SIZE.search(text)
    return max(2, int(next(filter(None, found.groups())))) if found else None
