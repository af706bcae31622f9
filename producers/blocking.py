"""The client for upstream services works without an event loop, too.

Its methods are the same, and return when the broker has answered.

    with BlockingJobRequests.connect("redis://localhost:6379/0") as requests:
        job_id = requests.submit(organization_id="acme", team_id="team-1", requirements="Two hours outdoors")

One client may be shared by threads. After a fork its thread is gone, so open one in each process.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from threading import Thread
from typing import TypeVar

from producers.client import JobRequests, Request
from producers.job_reader import DEFAULT_TIMEOUT, Job, JobNews, Token
from streams.jobs.events import DEFAULT_REASON, JobId

_T = TypeVar("_T")


class BlockingJobRequests:
    """The topic of requests, for writing by code that is not asynchronous. Made by `connect`."""

    def __init__(self, requests: JobRequests, loop: asyncio.AbstractEventLoop) -> None:
        self._requests = requests
        self._loop = loop

    @classmethod
    @contextmanager
    def connect(
        cls,
        broker_url: str,
        *,
        source: str = "upstream",
        partitions: int = 1,
        api_url: str | None = None,
        token: Token | None = None,
    ) -> "Iterator[BlockingJobRequests]":
        """Give a client whose thread and connections end with the block. Arguments are those of `JobRequests.connect`.

        Raises:
            ValueError: a URL or the token is not one that can be used; the message names what is wrong with it.
        """
        loop = asyncio.new_event_loop()
        # A daemon: a program that ends in the middle of the block must not wait for it.
        thread = Thread(target=loop.run_forever, name="teamfit-client", daemon=True)
        thread.start()
        opened = JobRequests.connect(broker_url, source=source, partitions=partitions, api_url=api_url, token=token)
        try:
            requests = _wait(opened.__aenter__(), loop)
            try:
                yield cls(requests, loop)
            finally:
                _wait(opened.__aexit__(None, None, None), loop)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def submit(
        self,
        *,
        organization_id: str,
        team_id: str,
        requirements: str,
        idempotency_key: str | None = None,
        run_at: datetime | None = None,
    ) -> JobId:
        """Return the job of the request, once the broker has it. See `JobRequests.submit`.

        Raises:
            InvalidArgument: a value is out of its bounds; nothing was sent.
            RunAtTooFar: `run_at` is more than 366 days ahead; nothing was sent.
            SubmitFailed: the broker did not confirm. Submit again, with an idempotency key, to be sure.
        """
        request = Request(
            organization_id=organization_id,
            team_id=team_id,
            requirements=requirements,
            idempotency_key=idempotency_key,
            run_at=run_at,
        )
        return self.submit_many([request])[0]

    def submit_many(self, requests: Iterable[Request]) -> list[JobId]:
        """Return the jobs of the requests, in their order, once the broker has them all. See `JobRequests`.

        Raises:
            InvalidArgument: a value of any request is out of its bounds; nothing was sent.
            RunAtTooFar: the `run_at` of any is more than 366 days ahead; nothing was sent.
            SubmitFailed: the broker did not confirm them all. Submit all again, with idempotency keys, to be sure.
        """
        return _wait(self._requests.submit_many(list(requests)), self._loop)

    def cancel(self, job_id: JobId, *, organization_id: str, reason: str = DEFAULT_REASON) -> None:
        """Ask for a job to be cancelled. Repeats are harmless. See `JobRequests.cancel`.

        Raises:
            InvalidArgument: a value is out of its bounds; nothing was sent.
            SubmitFailed: the broker did not confirm. Cancel again to be sure.
        """
        _wait(self._requests.cancel(job_id, organization_id=organization_id, reason=reason), self._loop)

    def wait(self, job_id: JobId, *, timeout: timedelta = DEFAULT_TIMEOUT) -> Job:
        """Return the job when it has ended. See `JobReader.wait`.

        Raises:
            InvalidArgument: the client was opened without `api_url`.
            StillRunning: it has not ended in this time.
            ReadRefused: the API will not tell.
        """
        return _wait(self._requests.wait(job_id, timeout=timeout), self._loop)

    def follow(self, job_id: JobId, *, after: int = 0, timeout: timedelta = DEFAULT_TIMEOUT) -> Iterator[JobNews]:
        """Yield each event of the job as it comes, until it has ended. See `JobReader.follow`.

        Raises:
            InvalidArgument: the client was opened without `api_url`.
            StillRunning: nothing has come for this long.
            ReadRefused: the API will not tell.
        """
        news = self._requests.follow(job_id, after=after, timeout=timeout)
        try:
            while (one := _wait(anext(news, None), self._loop)) is not None:
                yield one
        finally:
            _wait(news.aclose(), self._loop)


def _wait(what: Awaitable[_T], loop: asyncio.AbstractEventLoop) -> _T:
    async def awaited() -> _T:
        return await what

    return asyncio.run_coroutine_threadsafe(awaited(), loop).result()
