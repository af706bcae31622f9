"""The window that tells a bad deploy from bad jobs: over several organizations, whatever they send."""

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from streams.delivery.standstill import _MOST_ORGANIZATIONS, FailureWindow

_SECONDS = 60.0


class Try(NamedTuple):
    """One delivery that a stage has tried, and how long after the one before."""

    organization: str
    job: int
    failed: bool
    after_s: float


_TRIES = st.lists(
    st.builds(
        Try,
        st.sampled_from(["acme", "globex", "initech", "umbrella"]),
        st.integers(0, 40),
        st.sampled_from([True, True, True, False]),  # mostly failures, or nothing ever opens
        st.sampled_from([0.0, 0.1, 1.0, _SECONDS / 2, _SECONDS + 1]),
    ),
    max_size=120,
)
_MINIMA = st.integers(2, 24)


class Watched:
    """A window, the time that it goes by, and all that it was told."""

    def __init__(self, minimum: int) -> None:
        self.now = 0.0
        self.told: list[tuple[float, Try]] = []
        self.window = FailureWindow(seconds=_SECONDS, minimum=minimum, clock=lambda: self.now)

    def tell(self, one: Try) -> bool:
        """Tell it of a try; return whether the stage should stand still."""
        self.now += one.after_s
        self.told.append((self.now, one))
        job = (one.organization, one.job)
        if one.failed:
            assert self.window.failed(one.organization, job) == self.window.is_open
        else:
            self.window.succeeded(one.organization, job)
        return self.window.is_open

    def recent(self) -> Sequence[Try]:
        """Return what counts: of each organization the last tries, and of those the ones in the time."""
        counted: list[tuple[float, Try]] = []
        for organization in {one.organization for _, one in self.told}:
            of_it = [(at, one) for at, one in self.told if one.organization == organization]
            counted += of_it[-max(1, self.window.minimum // 2) :]
        return [one for at, one in counted if at >= self.now - _SECONDS]


@given(tries=_TRIES, minimum=_MINIMA)
def test_it_opens_when_most_recent_tries_failed_of_jobs_enough_and_closes_with_a_success(
    tries: Sequence[Try], minimum: int
) -> None:
    """However organizations take turns: no less opens it, no more is needed, nothing but a success closes it."""
    watched = Watched(minimum)
    is_open = False
    for one in tries:
        answer = watched.tell(one)
        recent = watched.recent()
        failures = [each for each in recent if each.failed]
        enough = len({(each.organization, each.job) for each in failures}) >= minimum
        is_open = one.failed and (is_open or (enough and 2 * len(failures) > len(recent)))
        assert answer == is_open


@given(tries=_TRIES, minimum=_MINIMA, organization=st.none() | st.just("acme"))
def test_no_organization_opens_it_alone(tries: Sequence[Try], minimum: int, organization: str | None) -> None:
    """Neither what one customer sends nor events that name nobody stop a stage for the others."""
    window = FailureWindow(seconds=_SECONDS, minimum=minimum, clock=lambda: 0.0)
    for one in tries:
        assert not window.failed(organization, one.job)
        assert not window.failed(organization)


@given(
    jobs=st.dictionaries(st.sampled_from(["acme", "globex", "initech"]), st.integers(0, 9), min_size=1),
    turns=st.lists(st.sampled_from(["acme", "globex", "initech"]), max_size=200),
)
def test_jobs_that_are_tried_again_and_again_count_once(jobs: dict[str, int], turns: Sequence[str]) -> None:
    """A few jobs of a few customers do not open it, however often they fail."""
    window = FailureWindow(seconds=_SECONDS, minimum=sum(jobs.values()) + 2, clock=lambda: 0.0)
    failed = dict.fromkeys(jobs, 0)
    for organization in turns:
        if jobs.get(organization):
            failed[organization] += 1
            assert not window.failed(organization, (organization, failed[organization] % jobs[organization]))


@given(tries=_TRIES, minimum=_MINIMA)
def test_after_its_time_nothing_of_before_counts(tries: Sequence[Try], minimum: int) -> None:
    """A quiet stage is not stopped by failures of an hour ago: it does what a new window would."""
    watched, fresh = Watched(minimum), Watched(minimum)
    for one in tries:
        watched.tell(one)
    watched.tell(Try("acme", 0, failed=False, after_s=_SECONDS + 1))
    fresh.tell(Try("acme", 0, failed=False, after_s=_SECONDS + 1))
    for one in tries:
        assert watched.tell(one) == fresh.tell(one)


def test_a_bad_deploy_opens_it_though_each_customer_has_one_job() -> None:
    """Twenty customers, a job each: the twentieth failure opens it."""
    window = FailureWindow(minimum=20)
    answers = [window.failed(f"organization-{number}", number) for number in range(20)]
    assert answers == [*[False] * 19, True]


def test_it_remembers_a_bounded_number_of_organizations() -> None:
    """The oldest are forgotten first, so that a flood of names costs no memory and hides no bad deploy."""
    window = FailureWindow(minimum=20)
    for number in range(2 * _MOST_ORGANIZATIONS):
        window.succeeded(f"organization-{number}", number)
    assert len(window._tries) == _MOST_ORGANIZATIONS
    assert f"organization-{2 * _MOST_ORGANIZATIONS - 1}" in window._tries
