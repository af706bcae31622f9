"""The comparison as a picture, an SVG that follows the reader's light or dark theme."""

from collections.abc import Sequence
from dataclasses import dataclass

import svg

_WIDTH, _LABELS, _ROW = 800, 300, 26
_VALUES = 90  # room for the number right of the longest bar
_TOP = 58
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 15px; font-weight: 600 }
.note { font-size: 11px; fill: #6e7781 }
.ours { fill: #c6302b } .peer { fill: #8c959f } .raw { fill: #d0d7de }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note { fill: #8d96a0 } .peer { fill: #6e7681 } .raw { fill: #3d444d }
}
"""


@dataclass(frozen=True)
class Bar:
    """A row of the picture; `kind` is `ours`, `peer` or `raw`."""

    label: str
    value: float
    kind: str


def draw(title: str, note: str, bars: Sequence[Bar], *, is_ordered: bool = True) -> str:
    """Return the SVG, the longest bar first unless they are to stay in order."""
    ordered = sorted(bars, key=lambda bar: -bar.value) if is_ordered else bars
    scale = (_WIDTH - _LABELS - _VALUES) / max(bar.value for bar in bars)
    height = _TOP + _ROW * len(ordered) + 8
    elements: list[svg.Element] = [
        svg.Style(text=_STYLE),
        svg.Text(x=8, y=22, class_=["title"], text=title),
        svg.Text(x=8, y=42, class_=["note"], text=note),
    ]
    for index, bar in enumerate(ordered):
        top = _TOP + index * _ROW
        length = max(1.0, round(bar.value * scale, 1))
        elements += [
            svg.Text(x=_LABELS - 8, y=top + 16, text_anchor="end", text=bar.label),
            svg.Rect(x=_LABELS, y=top + 3, width=length, height=_ROW - 8, rx=2, class_=[bar.kind]),
            svg.Text(x=_LABELS + length + 6, y=top + 16, text=f"{bar.value:,.0f}"),
        ]
    picture = svg.SVG(width=_WIDTH, height=height, viewBox=svg.ViewBoxSpec(0, 0, _WIDTH, height), elements=elements)
    return f"{picture}\n"
