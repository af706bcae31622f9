"""The books are compared with the provider's invoice, call by call.

A call of known cost must be on the invoice as it is in the books, to the last unit. What else the invoice has must be
one of the same job's calls of unknown cost, and all of that must cost no more than the books hold for it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from infra.local.llm.misbehaviour import Line

_MICRO = 1_000_000


class Price(BaseModel):
    """Micro-units of a currency for a million tokens."""

    input: int
    output: int

    def of(self, prompt: int, completion: int) -> int:
        """Return what one call costs, in micro-units, rounded up as a ledger's entry is."""
        return -(-(prompt * self.input + completion * self.output) // _MICRO)


@dataclass(frozen=True)
class Call:
    """A call in the pipeline's books."""

    number: int | None
    maybe_billed: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: int | None


class Sum(BaseModel):
    """Calls, their tokens and their cost in micro-units."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: int = 0


class Balance(BaseModel):
    """The result of a comparison.

    Attributes:
        invoice: all that the provider bills for jobs.
        known: what the books say exactly.
        rest: on the invoice, and of unknown cost in the books.
        unknown_calls: calls in the books which may have been billed.
        unknown_cost: what the books hold for them.
        unbilled_calls: calls that the provider refused.
        differences: what is wrong; empty where the books agree.
    """

    invoice: Sum
    known: Sum
    rest: Sum
    unknown_calls: int
    unknown_cost: int
    unbilled_calls: int
    differences: list[str]


def balance(calls: Sequence[Call], invoice: Sequence[Line], price: Price) -> Balance:
    """Compare the books with the invoice."""
    billed: defaultdict[int | None, Counter[tuple[int, int]]] = defaultdict(Counter)
    known: defaultdict[int | None, Counter[tuple[int, int]]] = defaultdict(Counter)
    for line in invoice:
        billed[line.number][line.prompt_tokens, line.completion_tokens] += 1
    sure = [call for call in calls if not call.maybe_billed and call.prompt_tokens is not None]
    unsure = [call for call in calls if call.maybe_billed]
    free = [call for call in calls if not call.maybe_billed and call.prompt_tokens is None]
    for call in sure:
        known[call.number][call.prompt_tokens or 0, call.completion_tokens or 0] += 1
    unknown = Counter(call.number for call in unsure)
    differences: list[str] = []
    rest: list[tuple[int, int]] = []
    for number in sorted(billed.keys() | known.keys(), key=str):
        if invented := known[number] - billed[number]:
            differences.append(f"line {number}: in the books and on no invoice: {list(invented.elements())}")
        left = list((billed[number] - known[number]).elements())
        if len(left) > unknown[number]:
            differences.append(f"line {number}: billed {left}, and {unknown[number]} unknown calls in the books")
        rest += left
    differences += _wrong_costs(sure, free, price)
    owed, held = _sum(rest, price), sum(call.cost or 0 for call in unsure)
    if owed.cost > held:
        differences.append(f"unknown calls are held at {held}, and were billed {owed.cost}")
    return Balance(
        invoice=_sum(((line.prompt_tokens, line.completion_tokens) for line in invoice), price),
        known=_sum(((call.prompt_tokens or 0, call.completion_tokens or 0) for call in sure), price),
        rest=owed,
        unknown_calls=len(unsure),
        unknown_cost=held,
        unbilled_calls=len(free),
        differences=differences,
    )


def _wrong_costs(sure: Iterable[Call], free: Iterable[Call], price: Price) -> list[str]:
    wrong = [call for call in sure if call.cost != price.of(call.prompt_tokens or 0, call.completion_tokens or 0)]
    wrong += [call for call in free if call.cost != 0]
    return [f"wrong cost: {call}" for call in wrong]


def _sum(tokens: Iterable[tuple[int, int]], price: Price) -> Sum:
    total = Sum()
    for prompt, completion in tokens:
        total.calls += 1
        total.prompt_tokens += prompt
        total.completion_tokens += completion
        total.cost += price.of(prompt, completion)
    return total
