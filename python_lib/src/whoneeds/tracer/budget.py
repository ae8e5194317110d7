# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tracer may cost, kept by itself: when it takes more, it does less, in steps, and says so.

The first steps double the time between two samples, the last one leaves packets out. Whoever asked for a small cost
gets it even where no service manager keeps a bound. Pure: times and costs are arguments.
"""

from typing import NamedTuple, Optional

#: The cost of so long counts, and no less than one sample.
WINDOW_S = 30.0
#: Doublings of the period; the step after them leaves packets out.
DOUBLINGS = 3
WITHOUT_PACKETS = DOUBLINGS + 1
#: After so many windows in a row that took less than half of what is allowed, one step is taken back.
_GOOD_WINDOWS = 4


class Judgement(NamedTuple):
    """What is to be done from now on, in a new segment: closing the open one gives its memory back.

    Attributes
    ----------
    step : int
        0: all as set; up to `DOUBLINGS`: the period doubled so often; `WITHOUT_PACKETS`.
    reason : str or None
        Why the step is higher than before; None if it is not.
    """

    step: int
    reason: Optional[str]


class Budget:
    """Watches over the cost of a run.

    Parameters
    ----------
    cpu_share : float
        Most of one core, over a window.
    memory_bytes : int
        Most memory that the process holds.
    now_s, cpu_s : float
        Time, and processor time so far, at the begin.

    Attributes
    ----------
    step : int
        The present one.
    """

    def __init__(self, cpu_share: float, memory_bytes: int, now_s: float, cpu_s: float) -> None:
        self.cpu_share, self.memory_bytes = cpu_share, memory_bytes
        self.step = 0
        self._begun_s, self._cpu_s = now_s, cpu_s
        self._good = 0
        self._closed = False

    def judge(self, now_s: float, cpu_s: float, memory_bytes: int) -> Optional[Judgement]:
        """Look at the cost; None if nothing changes.

        Parameters
        ----------
        now_s, cpu_s : float
            Time, and processor time so far.
        memory_bytes : int
            What the process holds now.
        """
        if memory_bytes > self.memory_bytes and not self._closed:
            self._closed = True
            return Judgement(self.step, None)
        passed_s = now_s - self._begun_s
        if passed_s < WINDOW_S:
            return None
        share = (cpu_s - self._cpu_s) / passed_s
        self._begun_s, self._cpu_s = now_s, cpu_s
        self._closed = False
        if share > self.cpu_share or memory_bytes > self.memory_bytes:
            self._good = 0
            if self.step == WITHOUT_PACKETS:
                return None
            self.step += 1
            if share > self.cpu_share:
                reason = f"{100 * share:.1f} % of a core over {passed_s:.0f} s, {100 * self.cpu_share:g} % allowed"
            else:
                reason = f"{memory_bytes >> 20} MiB of memory, {self.memory_bytes >> 20} MiB allowed"
            return Judgement(self.step, reason)
        self._good = self._good + 1 if share < self.cpu_share / 2 else 0
        if self.step and self._good >= _GOOD_WINDOWS:
            self._good = 0
            self.step -= 1
            return Judgement(self.step, None)
        return None


def period_at(period_s: float, step: int) -> float:
    """The time between two samples at a step."""
    return float(period_s * 2 ** min(step, DOUBLINGS))


def words_of(step: int, period_s: float) -> str:
    """What a step means, for people."""
    if step == 0:
        return "all as set"
    words = f"a sample every {period_at(period_s, step):g} s"
    return f"{words} and no packets" if step >= WITHOUT_PACKETS else words
