# SPDX-License-Identifier: GPL-3.0-or-later
r"""Macroscope: which needs of an application are built in (static) and which are of the moment (transient).

L. Popa, B.-G. Chun, I. Stoica, J. Chandrashekar, N. Taft: "Macroscope: End-Point Approach to Networked
Application Dependency Discovery", CoNEXT 2009. Section 2.1 defines the levels, section 3.2 the rule.

The rule, for each application *a*, over services *s* = (protocol, port):

- :math:`N` instances of *a* were seen, :math:`N_s` of them used *s*, and :math:`S` services were used in all.
- Step 1: :math:`M = \sqrt{\sum_s (N - N_s)^2 / S}`. If :math:`M < T (N - 1)`, the application makes no transient
  connections and every service is static (reason ``all_static``).
- Step 2, for the others: a port below 1024 is static (``well_known_port``); otherwise *s* is static if
  :math:`|U_s| / |U| \ge U` and :math:`N_s / N \ge I` (``shared``), and transient if not (``not_shared``).
  :math:`U` are the users of *a*, :math:`U_s` those who reached *s* through it.
- Sampling: a connection of mean duration :math:`d` shorter than the sampling period :math:`W` is seen with
  probability :math:`p_d = d / W`, so :math:`N_s / N` (neither :math:`|U_s|/|U|` nor :math:`M`) is raised by
  :math:`1/p_d`, at most to 1, if there are several samples of it.

One instance alone (:math:`N = 1`) has :math:`M = 0`, which is not below :math:`T \cdot 0`: step 2 decides.

What stands at each level: `whoneeds.analysis.levels`.

Where this departs from the paper, and why:

- An instance is (application, pid, address) *on a host*: the paper's address names a machine, but a loopback
  address, or one that two sites use, does not. For the same reason a service instance is (address, protocol,
  port) and the traced host that owns the address.
- A user is what `ServiceUse.user` says. On laptops the paper takes a machine for a user; on servers it is
  (host, uid). A process that was gone before it could be asked has no known user: it counts as nobody, neither in
  :math:`U` nor in :math:`U_s`. Where no user of a service is known, only the share of instances decides: "not known"
  is not "zero".
- The mean duration :math:`d` is the larger of two figures. The first is the observed mean, as published. Where
  durations come from samples alone that is too short, being cut at both ends, and would boost too much; so
  the second is estimated from the counts: if durations are memoryless, connections seen in :math:`k` samples on
  average last :math:`W / \ln(k / (k - 1))`. If neither says anything (every connection was seen once, with no
  duration), :math:`d` is not known, and nothing is adjusted: "not known" is not "zero".
- "Multiple samples" is read as two or more.
- :math:`W` is the mean of the observers' periods, weighted by flows: hosts may be sampled at different ones.
- A process seen again under a reused pid is the same instance, as in the paper.
"""

import math
from dataclasses import dataclass, fields

import ibis

from whoneeds.analysis.levels import SERVICE, Counting, count_population, join_once, measure, spread_verdicts
from whoneeds.model.errors import SettingsError
from whoneeds.model.schema import is_whole_number


@dataclass(frozen=True)
class Thresholds:
    """The rule's parameters, with the paper's values (section 3.2) as defaults.

    Attributes
    ----------
    transient_share : float
        T: an application whose M is below this share of N - 1 makes no transient connections.
    users_share : float
        U: least share of the application's users that a static service has.
    instances_share : float
        I: least share of the application's instances that a static service has.
    well_known_below : int
        Ports below this one are static at any frequency.
    adjusted_from_samples : int
        Least number of samples of a use from which its frequency is adjusted for sampling.

    Raises
    ------
    SettingsError
        If a share lies outside [0, 1], a port outside [0, 65536] or a number of samples below 1.

    Examples
    --------
    >>> Thresholds().transient_share
    0.85
    """

    transient_share: float = 0.85
    users_share: float = 0.10
    instances_share: float = 0.10
    well_known_below: int = 1024
    adjusted_from_samples: int = 2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_share"):
                is_number = isinstance(value, float) or is_whole_number(value)
                legal = is_number and math.isfinite(value) and 0 <= value <= 1
                expected = "a share between 0 and 1"
            else:
                least, most = (0, 65536) if field.name == "well_known_below" else (1, 2**31)
                legal = is_whole_number(value) and least <= value <= most
                expected = f"a whole number between {least} and {most}"
            if not legal:
                raise SettingsError(
                    f"threshold {field.name}",
                    expected=expected,
                    found=ascii(value)[:80],
                    remedy=f"leave it out for the published value, {field.default}",
                )


def extract_dependencies(
    service_use: ibis.Table, application_instance: ibis.Table, thresholds: Thresholds = Thresholds()
) -> ibis.Table:
    """Decide for every use whether it is a static or a transient need, at all four levels.

    Parameters
    ----------
    service_use : ibis.Table
        Rows of `ServiceUse`; every instance in it is a row of the second table.
    application_instance : ibis.Table
        Rows of `ApplicationInstance`: the population. An instance that used nothing counts in it.
    thresholds : Thresholds, optional
        The paper's by default.

    Returns
    -------
    ibis.Table
        Rows of `Dependency`, in no particular order; an application without uses has none.
    """
    counting = Counting(adjusted_from_samples=thresholds.adjusted_from_samples)
    population = count_population(application_instance, counting)
    verdicts = _decide(measure(service_use, SERVICE, population, counting), thresholds)
    return spread_verdicts(service_use, population, verdicts, "macroscope", counting)


def _decide(services: ibis.Table, thresholds: Thresholds) -> ibis.Table:
    """The two steps of section 3.2: kind and reason of each (application, protocol, port)."""
    unused = (services.population - services.support).cast("float64")
    applications = services.group_by("app").agg(
        spread=((unused * unused).sum() / services.count().cast("float64")).sqrt(),
        bound=(services.population.max() - 1).cast("float64") * thresholds.transient_share,
    )
    rows = join_once(services, applications, ("app",))
    shared = (rows.users_share >= thresholds.users_share) & (rows.adjusted_share >= thresholds.instances_share)
    reason = ibis.cases(
        (rows.spread < rows.bound, "all_static"),
        (rows.port < thresholds.well_known_below, "well_known_port"),
        (shared, "shared"),
        else_="not_shared",
    )
    decided = rows.select(*SERVICE, reason=reason)
    return decided.mutate(kind=ibis.ifelse(decided.reason == "not_shared", "transient", "static"))
