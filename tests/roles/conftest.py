# SPDX-License-Identifier: GPL-3.0-or-later
"""Controllers and hosts for the tests of the roles."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .namespace_host import NamespaceHost
from .played import ZIPAPP, Player


@pytest.fixture(scope="session", autouse=True)
def built_zipapp() -> None:
    """The tracer as it is now must have been built."""
    if not ZIPAPP.is_file():
        pytest.exit(f"expected the tracer in {ZIPAPP}, found no such file; run 'make zipapp'", returncode=2)


@pytest.fixture(scope="module")
def player(tmp_path_factory: pytest.TempPathFactory) -> Player:
    """A controller for the tests of one module."""
    return Player(tmp_path_factory.mktemp("controller"))


@pytest.fixture(scope="module")
def new_host() -> Iterator[Callable[[str], NamespaceHost]]:
    """Makes hosts, which end with the module's tests."""
    if os.geteuid() != 0:
        pytest.skip("hosts in namespaces need root")
    hosts: list[NamespaceHost] = []

    def make(name: str) -> NamespaceHost:
        hosts.append(NamespaceHost(name))
        return hosts[-1]

    yield make
    for host in hosts:
        host.stop()


def variables_of(host: NamespaceHost) -> dict[str, Any]:
    """How Ansible reaches a host."""
    return {
        "ansible_connection": "namespace_host",
        "namespace_host_pid": host.pid,
        "ansible_python_interpreter": str(Path(sys.executable).resolve()),
    }
