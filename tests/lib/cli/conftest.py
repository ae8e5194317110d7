# SPDX-License-Identifier: GPL-3.0-or-later
"""The command as a user meets it: run in this process for its words, or as a program for its terminal."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))

from shop import build_shop, collect

from whoneeds.cli.main import main


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture
def whoneeds(capsys):
    """Run the command in this process."""

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """A folder with the shop's collected segments, and the store that the whole line made of them."""
    folder = tmp_path_factory.mktemp("shop")
    collect(build_shop(), folder / "incoming")
    assert main(["run", "--from", str(folder / "incoming"), "--store", str(folder / "store")]) == 0
    return folder
