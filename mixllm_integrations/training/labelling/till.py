"""A spending limit that holds: what a call may cost is set aside before it."""

import asyncio
import math
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mixllm_integrations.core.errors import MixLLMError
from mixllm_integrations.core.purse import LocalPurse
from mixllm_integrations.serving.error_facts import status_of
from mixllm_integrations.training.labelling.workbook import Workbook

__all__ = ["LimitReachedError", "Till"]

T = TypeVar("T")


class LimitReachedError(MixLLMError):
    """What is left of the spending limit does not pay for the next call."""


class Till:
    """Pays for calls out of a limit, and notes in a workbook what was bought.

    Parameters
    ----------
    workbook
        What it has paid for in runs before counts against the limit, too.
    limit
        USD; ``None``: there is none.
    concurrency
        How many calls are under way at once.

    Attributes
    ----------
    closed
        Whether the limit was reached: nothing more is bought then.
    """

    def __init__(
        self, workbook: Workbook, limit: float | None, *, concurrency: int = 8
    ) -> None:
        self.workbook, self.closed = workbook, False
        self._before = workbook.spent()
        self._purse = LocalPurse(limit, period_seconds=math.inf)
        if self._before:
            self._purse.settle("before", self._before)
        self._changed = asyncio.Condition()
        self._under_way = 0
        self._slots = asyncio.Semaphore(concurrency)

    @property
    def spent(self) -> float:
        """USD that this run has spent."""
        return self._purse.balance().spent - self._before

    @property
    def spent_in_all(self) -> float:
        """USD that all runs with this workbook have spent."""
        return self._purse.balance().spent

    async def buy(
        self,
        call: Callable[[], Awaitable[tuple[T, float | None]]],
        *,
        bound: float,
        candidate: str,
        digest: str,
    ) -> T:
        """Make a call once its price is set aside.

        Parameters
        ----------
        call
            Returns what it brings, as JSON can hold it, and what it has cost;
            ``None``: nobody knows, so as much as it may.
        bound
            The most that it may cost in USD.
        candidate
            Who is asked.
        digest
            Under which it is kept.

        Returns
        -------
        T
            What the call brings.

        Raises
        ------
        LimitReachedError
            If the limit does not pay for it, not even when all calls that are
            under way have ended; and always from then on.
        """
        async with self._slots:
            return await self._bought(call, bound, candidate, digest)

    async def _bought(
        self,
        call: Callable[[], Awaitable[tuple[T, float | None]]],
        bound: float,
        candidate: str,
        digest: str,
    ) -> T:
        key = uuid.uuid4().hex
        await self._set_aside(key, bound)
        self.workbook.begin(key, bound)
        cost: float | None = None
        try:
            value, cost = await call()
            real = bound if cost is None else cost
            self.workbook.end(
                key, real, candidate=candidate, digest=digest, value=value
            )
        except Exception as error:
            # Who refuses with a status sends no bill; who is lost may send one.
            cost = None if status_of(error) is None else 0.0
            cost = getattr(error, "paid", cost)
            real = bound if cost is None else cost
            self.workbook.end(key, real, candidate=candidate)
            raise
        finally:
            await self._settle(key, cost)
        return value

    async def _set_aside(self, key: str, bound: float) -> None:
        async with self._changed:
            while not self.closed and not self._purse.reserve(key, bound):
                if not self._under_way:
                    self.closed = True
                    self._changed.notify_all()
                else:
                    await self._changed.wait()
            if self.closed:
                raise LimitReachedError("the spending limit is reached")
            self._under_way += 1

    async def _settle(self, key: str, cost: float | None) -> None:
        self._purse.settle(key, cost)
        self._under_way -= 1
        async with self._changed:
            self._changed.notify_all()
