"""The words by which a model declines in prose, where three activities were asked for."""

import re
from typing import Final

# A refusal is short, and says so at its beginning. A long text without JSON is an answer in another form.
_BEGINNING_CHARS: Final = 400
_LONGEST_CHARS: Final = 2_000

_UNABLE: Final = (
    r"(can ?not|can't|could ?n't|could not|won't|will not|(am|are) (unable|not able|not allowed|not permitted) to|"
    r"'(m|re) (unable|not able|not allowed|not permitted) to)"
)
_DO: Final = (
    r"(help|assist|comply|provide|fulfil\w*|create|generate|write|produce|do (that|this|it|so)|respond|answer|"
    r"continue|engage|support|suggest|discuss|complete|process|accommodate|give|share|plan|design|participate|offer)"
)
_DECLINES: Final = re.compile(
    "|".join(
        (
            rf"\b(i|we) ?(really |simply |just |also )?{_UNABLE} (be able to )?(in good conscience )?{_DO}\b",
            rf"\b(unable|not able|not allowed|not permitted) to {_DO}\b",
            r"\bi (must|have to|need to|will have to|am going to)? ?(respectfully |politely )?(decline|refuse)\b",
            r"\bi('m| am) not comfortable\b",
            rf"\bnot something (that )?(i|we) ?('m |am |are )?(can|able to|willing to|comfortable) ?{_DO}?",
            r"\b(request|prompt) (was|has been|is) (rejected|declined|refused|denied)\b",
            r"\bagainst (my|our|the) \w*\s?(guidelines|polic(y|ies)|programming|principles|values|rules)\b",
            r"\b(violates?|violating) (my|our|the|openai's) ([\w ]{0,20})(guidelines|polic(y|ies)|terms)\b",
            r"\bas an ai\b[^.!?]{0,60}\b(can ?not|can't|unable|not able|do not|don't)\b",
            # German, Dutch, Scandinavian
            r"\b(kann|darf|werde|können|dürfen|möchte) (ich|wir)\b[^.!?]{0,60}\bnicht\b",
            r"\b(ich|wir) (kann|darf|werde|können|dürfen|möchte)\b[^.!?]{0,60}\bnicht\b",
            r"\b(kan ik|ik kan)\b[^.!?]{0,60}\bniet\b",
            r"\b(jag|jeg) kan\b[^.!?]{0,30}\b(inte|ikke)\b|\bkan (jag|jeg)\b[^.!?]{0,60}\b(inte|ikke)\b",
            # French, Spanish, Portuguese, Italian
            r"\bje (ne (peux|puis|saurais|suis pas en mesure)|refuse)\b",
            r"\bno (puedo|podemos|me es posible|es posible)\b",
            r"\bnão (posso|consigo|podemos|é possível)\b",
            r"\bnon (posso|possiamo|sono in grado|è possibile)\b",
            # Romanian, Hungarian, Finnish, Greek
            r"\bnu (pot|putem)\b",
            r"\bnem (tudok|tudunk|segíthetek)\b",
            r"\ben (voi|pysty)\b",
            r"\bδεν (μπορώ|μπορούμε)\b",  # noqa: RUF001 - Greek is meant
            # Czech, Slovak, Polish, Russian, Ukrainian, Turkish
            r"\b(nemohu|nemůžu|nemôžem|nemůžeme)\b",
            r"\bnie (mog(ę|emy)|jestem w stanie)\b",
            r"\bне (можу|можемо)\b",  # noqa: RUF001 - Cyrillic is meant
            r"\bне (могу|можем)\b",  # noqa: RUF001 - Cyrillic is meant
            r"\b(yardımcı olamam|yapamam)\b",  # noqa: RUF001 - so is the dotless i
            # Chinese, Japanese, Korean
            r"无法|不能|不便|抱歉|無法",
            r"できません|できかねます|致しかねます",
            r"수 없습니다|도와드릴 수 없",
            # Arabic, Hebrew, Hindi, Indonesian, Vietnamese, Thai
            r"لا (أستطيع|يمكنني|نستطيع)|لن أتمكن",
            r"לא (יכול|יכולה|אוכל)",
            r"नहीं (कर सकता|कर सकती|कर सकते)|असमर्थ",
            r"\btidak (dapat|bisa) (membantu|membuat|memberikan|memenuhi)\b",
            r"không thể",
            r"ไม่สามารถ",
        )
    ),
    re.IGNORECASE,
)
_APOSTROPHES: Final = str.maketrans("\u2018\u2019\u02bc", "'''")


def declines(text: str) -> bool:
    """Return whether a short text without activities refuses to help."""
    text = text.strip()
    if len(text) > _LONGEST_CHARS:
        return False
    return bool(_DECLINES.search(text[:_BEGINNING_CHARS].translate(_APOSTROPHES)))
