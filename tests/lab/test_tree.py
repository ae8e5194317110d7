# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hosts' tree is made with: the machine's own tools, mirror and proxy, and plain words without them."""

import os
import re
import shutil
from pathlib import Path

import pytest

from .failure import LabError, MirrorError
from .tree import (
    CONTROLLER_TOOLS,
    SUITE,
    build_tree,
    debian_mirror,
    missing_packages,
    proxy_environment,
    require_tools,
    tree_name,
)

NEEDS_APT = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt is not installed here")
# A port at which nobody answers.
NOBODY = "http://127.0.0.1:9/debian"


def configure_apt(folder: Path, monkeypatch: pytest.MonkeyPatch, sources: str, more: str = "") -> None:
    """Let the real apt read these sources instead of the machine's."""
    (folder / "sources.list").write_text(sources)
    (folder / "parts").mkdir()
    (folder / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{folder}/sources.list";\nDir::Etc::sourceparts "{folder}/parts";\n{more}\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(folder / "apt.conf"))


@NEEDS_APT
def test_the_mirror_is_the_one_that_apt_is_configured_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of several sources the one of the suite's main component counts, not the updates of it or another suite."""
    lines = [
        f"deb http://updates.example/debian {SUITE}-updates main",
        "deb http://other.example/debian sid main",
        f"deb http://extra.example/debian {SUITE} contrib",
        f"deb http://mirror.example/some/debian {SUITE} main",
    ]
    configure_apt(tmp_path, monkeypatch, "\n".join(lines) + "\n")
    assert (debian_mirror() or "").rstrip("/") == "http://mirror.example/some/debian"


@NEEDS_APT
def test_without_a_source_of_the_suite_the_choice_is_debootstraps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On a machine of another distribution no mirror is named."""
    configure_apt(tmp_path, monkeypatch, "deb http://other.example/ubuntu noble main\n")
    assert debian_mirror() is None


@NEEDS_APT
def test_debootstrap_gets_apts_own_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A proxy that apt is configured with stands in the environment in which debootstrap works."""
    configure_apt(tmp_path, monkeypatch, "", 'Acquire::http::Proxy "http://proxy.example:3128";')
    monkeypatch.delenv("http_proxy", raising=False)
    assert proxy_environment()["http_proxy"] == "http://proxy.example:3128"


def test_no_host_name_of_a_mirror_stands_in_the_recipe():
    """The code of the lab names no place in the net from which packages would come."""
    text = (Path(__file__).parent / "tree.py").read_text()
    assert not re.search(r"https?://|debian\.org", text)


@pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap needs root")
@pytest.mark.skipif(shutil.which("debootstrap") is None, reason="debootstrap is not installed here")
@NEEDS_APT
def test_a_mirror_that_does_not_answer_is_told_apart_from_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The real debootstrap on a dead address gives an error of its own, names it, and leaves nothing in the cache."""
    configure_apt(tmp_path, monkeypatch, f"deb {NOBODY} {SUITE} main\n")
    cache = tmp_path / "cache"
    with pytest.raises(MirrorError, match=re.escape(NOBODY)):
        build_tree(cache, lambda _: None)
    assert list(cache.iterdir()) == []


def test_missing_tools_are_named_with_the_command_that_installs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On a machine that has only ssh, each other package is named once, and nothing is installed."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for command in ("ssh", "ssh-keygen"):
        (folder / command).write_text("#!/bin/sh\n")
        (folder / command).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    assert missing_packages(tmp_path) == ["debootstrap", "iproute2", "mount", "util-linux"]
    with pytest.raises(LabError, match="apt-get install --yes --no-install-recommends debootstrap iproute2 mount util"):
        require_tools(tmp_path)


def test_debootstrap_is_not_missed_once_the_tree_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the tree in the cache all other tools are enough."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for command in set(CONTROLLER_TOOLS) - {"debootstrap"}:
        (folder / command).write_text("#!/bin/sh\n")
        (folder / command).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    assert missing_packages(tmp_path) == ["debootstrap"]
    (tmp_path / tree_name()).mkdir()
    require_tools(tmp_path)
