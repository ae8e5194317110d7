# SPDX-License-Identifier: GPL-3.0-or-later
"""Uses of services, one by one and by the dozen, and the population that they imply."""

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from macroscope_oracle import instance_of

from whoneeds.model.conclusions import ApplicationInstance, ServiceUse


def use(**chosen: Any) -> ServiceUse:
    """One use with unremarkable values where none are given."""
    row = {
        "app": "web", "host": "h", "pid": 1, "address": "10.0.0.1", "user": "h/1", "protocol": "tcp", "port": 5432,
        "resp_addr": "10.0.0.5", "resp_host": None, "resp_app": None, "flows": 1, "samples": 4, "duration_s": 20.0,
        "period_s": 5.0, "orig_bytes": None, "resp_bytes": None, "first_ns": 1, "last_ns": 2,
    }  # fmt: skip
    return ServiceUse(**{**row, **chosen})


def instances_of(uses: list[ServiceUse]) -> list[ApplicationInstance]:
    """The population that consists of exactly those who use something."""
    return [
        ApplicationInstance(*key, user, "h/boot/1/1", 1, 2)
        for key, user in sorted({(instance_of(row), row.user) for row in uses}, key=repr)
    ]


#: Few names and many uses, so that they meet.
USES = st.lists(
    st.builds(
        use,
        app=st.sampled_from(["a", "b"]),
        host=st.sampled_from(["h1", "h2"]),
        pid=st.integers(1, 6),
        address=st.sampled_from(["10.0.0.1", "::1"]),
        user=st.sampled_from(["h1/0", "h1/5", "h2/0", None]),
        protocol=st.sampled_from(["tcp", "udp"]),
        port=st.sampled_from([53, 1023, 1024, 5432, 40001, 40002, 40003]),
        resp_addr=st.sampled_from(["10.0.0.8", "10.0.0.9", "127.0.0.1"]),
        resp_host=st.sampled_from([None, "h1"]),
        resp_app=st.sampled_from([None, "p", "q"]),
        flows=st.integers(1, 4),
        samples=st.integers(1, 9),
        duration_s=st.integers(0, 30).map(float),
        period_s=st.sampled_from([1.0, 5.0]),
        orig_bytes=st.one_of(st.none(), st.integers(0, 9)),
        resp_bytes=st.one_of(st.none(), st.integers(0, 9)),
        first_ns=st.integers(1, 99),
        last_ns=st.integers(100, 199),
    ).map(lambda row: replace(row, samples=max(row.samples, row.flows))),
    min_size=1,
    max_size=25,
)
