# SPDX-License-Identifier: GPL-3.0-or-later
r"""Orion: services whose flows follow one another after a typical delay, found as a spike among all delays.

X. Chen, M. Zhang, Z. M. Mao, P. Bahl: "Automating Network Application Dependency Discovery: Experiences, Limitations,
and New Solutions", OSDI 2008. A baseline: it sees packets only, and nothing of programs.

For two services and each host, the delay from each flow of one to each flow of the other within 3 s is laid into 300
bins of 10 ms, summed over hosts. The histogram is smoothed by a low-pass filter, and the pair depends if its highest
bin exceeds the mean by more than :math:`k` standard deviations.

- ``remote_remote``: the host calls both, first the one, then the other.
- ``local_remote``: the host is called by one, and calls the other.

Where this is our reading, since the paper's own figures are not given in Macroscope's account of it:

- The filter is a sinc at a tenth of the sampling rate under a Kaiser window of 21 bins with beta 5. At the edges the
  histogram is mirrored (even padding): the usual odd padding makes spikes of its own there, and with a hundred delays
  raises false alarms from 0.3 to 10 of a hundred.
- :math:`k` is 5; the best :math:`k` for a data set is for who evaluates to find, since scores are returned.
- Flows are taken as the meter gives them. It splits on idle gaps; a keep-alive neither splits a flow nor counts.

A service whose answer is slow or jitters cannot reach 5 at all: a spike of width :math:`w` bins scores
:math:`\sqrt{(300 - w)/w}` at most.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from whoneeds.analysis.cooccurrence import by_host, near_pairs
from whoneeds.analysis.published import ServicePairs, require_positive
from whoneeds.analysis.trace import FlowTrace
from whoneeds.model.errors import SettingsError

KINDS = ("remote_remote", "local_remote")


@dataclass(frozen=True)
class OrionSettings:
    """The method's parameters.

    Attributes
    ----------
    bin_s : float
        Width of a bin of delays.
    bins : int
        How many: delays of up to ``bins * bin_s`` count.
    least_samples : int
        Delays below which a pair is skipped.
    threshold : float
        k: standard deviations above the mean from which a bin is a spike.
    filter_bins : int
        Length of the low-pass filter; odd.
    filter_beta : float
        Shape of its Kaiser window.
    filter_cutoff : float
        Where it cuts, as a share of the sampling rate.

    Raises
    ------
    SettingsError
        If one is not above 0, or the filter's length is even or beyond the histogram.
    """

    bin_s: float = 0.010
    bins: int = 300
    least_samples: int = 30
    threshold: float = 5.0
    filter_bins: int = 21
    filter_beta: float = 5.0
    filter_cutoff: float = 0.1

    def __post_init__(self) -> None:
        require_positive(self, "Orion")
        if self.filter_bins % 2 == 0 or self.filter_bins > self.bins:
            raise SettingsError(
                "Orion setting filter_bins",
                expected=f"an odd number up to {self.bins}, the bins of the histogram",
                found=str(self.filter_bins),
                remedy="leave it out for 21",
            )

    @property
    def bin_ns(self) -> int:
        """Width of a bin in nanoseconds."""
        return round(self.bin_s * 1e9)


def find_spikes(trace: FlowTrace, settings: OrionSettings = OrionSettings()) -> ServicePairs:
    """Score all pairs of services that have enough delays.

    Parameters
    ----------
    trace : FlowTrace
    settings : OrionSettings, optional

    Returns
    -------
    ServicePairs
        ``dependent`` is called first and ``depends_on`` follows; of ``local_remote`` the dependent is the service that
        the host itself offers. The score is that of the highest bin, in standard deviations above the mean.
    """
    histograms = _Histograms(len(trace.services), settings)
    callers = dict(by_host(trace.orig))
    called = dict(by_host(trace.resp))
    for host, out in callers.items():
        first_ns, service = trace.first_ns[out], trace.service[out]
        for before, after in near_pairs(first_ns, first_ns, settings.bins * settings.bin_ns):
            histograms.add(0, service[before], service[after], first_ns[after] - first_ns[before])
        incoming = called.get(host)
        if incoming is None:
            continue
        came_ns, offered = trace.first_ns[incoming], trace.service[incoming]
        for before, after in near_pairs(came_ns, first_ns, settings.bins * settings.bin_ns):
            histograms.add(1, offered[before], service[after], first_ns[after] - came_ns[before])
    return histograms.score()


def score_histogram(histogram: Any, settings: OrionSettings = OrionSettings()) -> Any:
    """How far the highest bin stands out after smoothing.

    Parameters
    ----------
    histogram : numpy.ndarray
        Delays in each bin; (..., bins).
    settings : OrionSettings, optional

    Returns
    -------
    numpy.ndarray
        Standard deviations above the mean; (...), 0 where all bins are equal.
    """
    half = settings.filter_bins // 2
    at = np.arange(-half, half + 1)
    taps = np.sinc(2 * settings.filter_cutoff * at) * np.kaiser(settings.filter_bins, settings.filter_beta)
    taps /= taps.sum()
    padded = np.pad(
        np.asarray(histogram, dtype=np.float64), [(0, 0)] * (np.ndim(histogram) - 1) + [(half, half)], mode="reflect"
    )
    smooth = np.lib.stride_tricks.sliding_window_view(padded, settings.filter_bins, axis=-1) @ taps
    deviation = smooth.std(axis=-1)
    peak = smooth.max(axis=-1) - smooth.mean(axis=-1)
    # rounding leaves a trace of deviation in a flat histogram: that is no spike
    flat = deviation <= 1e-12 * np.maximum(np.abs(smooth).max(axis=-1), 1.0)
    return np.where(flat, 0.0, peak / np.where(flat, 1.0, deviation))


class _Histograms:
    """Delays of each kind and pair of services, summed up sparsely: of most pairs there are few."""

    def __init__(self, services: int, settings: OrionSettings) -> None:
        self._services = max(services, 1)
        self._settings = settings
        self._key: list[Any] = []
        self._count: list[Any] = []
        self._held = 0

    def add(self, kind: int, first: Any, then: Any, delay_ns: Any) -> None:
        """Lay delays into their bins; a service after itself says nothing."""
        apart = first != then
        pair = (kind * self._services + first[apart]) * self._services + then[apart]
        key, count = np.unique(
            pair * self._settings.bins + delay_ns[apart] // self._settings.bin_ns, return_counts=True
        )
        self._key.append(key)
        self._count.append(count)
        self._held += len(key)
        if self._held > 1 << 23:
            self._sum_up()

    def _sum_up(self) -> None:
        if not self._key:
            return
        key, place = np.unique(np.concatenate(self._key), return_inverse=True)
        count = np.bincount(place, weights=np.concatenate(self._count), minlength=len(key)).astype(np.int64)
        self._key, self._count, self._held = [key], [count], len(key)

    def score(self) -> ServicePairs:
        """Scores of the pairs that have delays enough."""
        self._sum_up()
        bins = self._settings.bins
        key, count = (held[0] if held else np.zeros(0, dtype=np.int64) for held in (self._key, self._count))
        pair, place = np.unique(key // bins, return_inverse=True)
        samples = np.bincount(place, weights=count, minlength=len(pair)).astype(np.int64)
        enough = np.flatnonzero(samples >= self._settings.least_samples)
        row = np.full(len(pair), -1)
        row[enough] = np.arange(len(enough))
        scores = np.zeros(len(enough))
        for begin in range(0, len(enough), 4096):
            until = min(begin + 4096, len(enough))
            here = (row[place] >= begin) & (row[place] < until)
            histogram = np.zeros((until - begin, bins))
            histogram[row[place[here]] - begin, key[here] % bins] = count[here]
            scores[begin:until] = score_histogram(histogram, self._settings)
        chosen = pair[enough]
        kind = chosen // self._services**2
        return ServicePairs(
            dependent=chosen // self._services % self._services,
            depends_on=chosen % self._services,
            kind=np.array(KINDS)[kind],
            samples=samples[enough],
            score=scores,
        )
