"""This module finds activities in an answer's text while the text is still being written.

What it finds is only told, never saved: the whole answer is read again when it is there. So it looks at answers that
are JSON from their first character on; one that begins with reasoning or prose is told as a whole alone.
"""

import re
from typing import Final

from pydantic import ValidationError

from consumers.generation.activities import ACTIVITIES_PER_JOB, Activity

_BEGINS: Final = re.compile(r"\s*(?:(?:```|~~~)[\w+.-]*\s*)?[\[{]")
_NEXT: Final = re.compile(r'["{}]')
_IN_STRING: Final = re.compile(r'["\\]')
# The first characters tell whether it is JSON.
_HEAD_CHARS: Final = 64
# Three activities have a few thousand.
_MOST_CHARS: Final = 256 * 1024
# In objects around them, or one by one.
_DEEPEST: Final = 4


class Written:
    """The text of one answer so far. Each piece is looked at once."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._open: list[int] = []
        self._in_string = False
        self._found = 0
        self._is_json: bool | None = None

    def add(self, piece: str) -> list[Activity]:
        """Add what was written next; return the activities that it has completed."""
        if self._is_json is False or self._found == ACTIVITIES_PER_JOB:
            return []
        self._text += piece
        if len(self._text) > _MOST_CHARS or not self._begins():
            return []
        found = [activity for start, end in self._objects() if (activity := _activity(self._text[start:end]))]
        new = found[: ACTIVITIES_PER_JOB - self._found]
        self._found += len(new)
        return new

    def _begins(self) -> bool:
        if self._is_json is None:
            if _BEGINS.match(self._text):
                self._is_json = True
            elif len(self._text) > _HEAD_CHARS:
                self._is_json = False
        return bool(self._is_json)

    def _objects(self) -> list[tuple[int, int]]:
        """Return where each object begins and ends that has ended since."""
        ended: list[tuple[int, int]] = []
        while mark := (_IN_STRING if self._in_string else _NEXT).search(self._text, self._at):
            match mark[0]:
                case "\\":
                    if mark.end() == len(self._text):
                        self._at = mark.start()  # what is escaped comes with the next piece
                        return ended
                    self._at = mark.end() + 1
                    continue
                case '"':
                    self._in_string = not self._in_string
                case "{":
                    self._open.append(mark.start())
                case _ if self._open:
                    start = self._open.pop()
                    if len(self._open) < _DEEPEST:
                        ended.append((start, mark.end()))
            self._at = mark.end()
        self._at = len(self._text)
        return ended


def _activity(text: str) -> Activity | None:
    try:
        return Activity.model_validate_json(text)
    except ValidationError:
        return None
