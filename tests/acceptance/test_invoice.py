"""The books agree with the provider's invoice, whatever happened meanwhile."""

import pytest

from infra.bench.books import Call, Price, balance
from infra.bench.invoice import run
from infra.local.llm.misbehaviour import Line

_PRICE = Price(input=150_000, output=600_000)
_LINE = Line(number=7, streamed=True, prompt_tokens=300, completion_tokens=500)
_CALL = Call(7, maybe_billed=False, prompt_tokens=300, completion_tokens=500, cost=345)
_UNKNOWN = Call(7, maybe_billed=True, prompt_tokens=None, completion_tokens=None, cost=2400)


@pytest.mark.timeout(300)  # twice a killed worker may have had the probe, which is made again after a minute
@pytest.mark.usefixtures("_own_surroundings")
def test_the_books_of_a_bad_day_equal_the_invoice_to_the_last_unit() -> None:
    """Calls fail, are cut and go unanswered, an endpoint is away, workers are killed: no token is lost or invented."""
    report = run(120, slots=4)
    books = report.balance
    assert books.differences == []
    assert books.known.cost + books.rest.cost == books.invoice.cost
    assert books.known.calls + books.rest.calls == books.invoice.calls
    assert all(report.by_endpoint)
    assert {"ok", "500", "cut", "503"} <= report.met.keys()


def test_a_difference_of_any_kind_is_told() -> None:
    """The comparison is no formality: each way in which books can be wrong has a line of its own."""
    assert balance([_CALL], [_LINE], _PRICE).differences == []
    assert balance([_CALL, _UNKNOWN], [_LINE, _LINE], _PRICE).differences == []
    wrong = {
        "not in the books": ([], [_LINE]),
        "twice on the invoice": ([_CALL], [_LINE, _LINE]),
        "twice in the books": ([_CALL, _CALL], [_LINE]),
        "a token more": ([Call(7, maybe_billed=False, prompt_tokens=301, completion_tokens=500, cost=346)], [_LINE]),
        "another job's": ([Call(8, maybe_billed=False, prompt_tokens=300, completion_tokens=500, cost=345)], [_LINE]),
        "a wrong cost": ([Call(7, maybe_billed=False, prompt_tokens=300, completion_tokens=500, cost=344)], [_LINE]),
        "held too cheap": (
            [Call(7, maybe_billed=True, prompt_tokens=None, completion_tokens=None, cost=344)],
            [_LINE],
        ),
    }
    for kind, (calls, invoice) in wrong.items():
        assert balance(calls, invoice, _PRICE).differences, kind
