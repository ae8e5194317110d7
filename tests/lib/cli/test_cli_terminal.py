# SPDX-License-Identifier: GPL-3.0-or-later
"""The command on a real terminal, in a pipe, and as documentation."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from whoneeds.cli import reference
from whoneeds.cli.main import GROUPS

COMMAND = [sys.executable, "-m", "whoneeds"]
DOCS = Path(__file__).parents[3] / "docs"
CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def on_terminal(words, columns, **variables):
    """Run the command with standard output on a pseudo-terminal of a width; what arrived there."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", **variables}
    for name in ("COLUMNS", "NO_COLOR"):
        if name not in variables:
            environment.pop(name, None)
    with subprocess.Popen(
        [*COMMAND, *map(str, words)], stdin=subprocess.DEVNULL, stdout=follower, stderr=subprocess.PIPE, env=environment
    ) as process:
        os.close(follower)
        arrived = b""
        while True:
            try:
                piece = os.read(leader, 65536)
            except OSError:
                break
            if not piece:
                break
            arrived += piece
        process.communicate(timeout=60)
    os.close(leader)
    assert process.returncode == 0
    return arrived.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("verb", [("deps",), ("deps", "--level", "4"), ("connections",)])
def test_tables_fit_the_terminal(shop, columns, verb):
    """At 80 and at 200 columns no line is wider than the terminal and each of the five rows is one line."""
    text = CODES.sub("", on_terminal([*verb, "--store", shop / "store"], columns))
    lines = text.splitlines()
    assert max(map(len, lines)) <= columns
    assert len([line for line in lines if re.search(r"(tcp|udp)\b", line) and not line.startswith("(")]) == 5
    assert ("left out to fit 80 columns" in text.replace("\n", " ")) == (columns == 80)


def test_colour_only_where_welcome(shop):
    """Titles are set off on a terminal, and no terminal code is written with NO_COLOR, a dumb terminal or a pipe."""
    words = ["deps", "--store", shop / "store"]
    assert CODES.search(on_terminal(words, 100))
    assert not CODES.search(on_terminal(words, 100, NO_COLOR="1"))
    assert not CODES.search(on_terminal(words, 100, TERM="dumb"))


def test_pipe_gets_everything(shop):
    """In a pipe nothing is cut, left out or coloured, even if the environment names a width."""
    done = subprocess.run(
        [*COMMAND, "deps", "--store", str(shop / "store")],
        capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "40"},
    )  # fmt: skip
    assert "LAST SEEN" in done.stdout.splitlines()[0]
    assert "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 6


def test_reader_that_has_enough(shop):
    """A reader that closes the pipe early gets no traceback behind its back."""
    with subprocess.Popen(
        [*COMMAND, "deps", "--store", str(shop / "store"), "--format", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        process.stdout.close()
        said = process.stderr.read()
        process.wait(60)
    assert "Traceback" not in said
    assert "Error" not in said


def test_ascii_terminal(shop):
    """A terminal that knows ASCII only gets escapes instead of an error."""
    done = subprocess.run(
        [*COMMAND, "deps", "--store", str(shop / "store"), "--level", "4"],
        capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.stdout.isascii()


def test_help_is_light():
    """Help for every verb comes without the engine, the columns, the table and the network libraries being loaded."""
    program = (
        "import sys; from whoneeds.cli.main import main; main(['--help']); main(['deps', '--help']);"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'ibis', 'duckdb', 'pyarrow', 'pandas', 'numpy', 'rich', 'psutil', 'yaml'}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_help_has_an_example_for_every_verb(whoneeds):
    """The list of verbs shows one example for each, and each verb's own help shows all of its examples."""
    everything = whoneeds("--help").out
    for group in GROUPS:
        for verb, examples in group.EXAMPLES.items():
            assert examples[0] in everything
            if verb.__name__ != "trace":
                words = [getattr(group, "NAME", None), verb.__name__.replace("_", "-")]
                told = whoneeds(*filter(None, words), "--help").out
                assert all(example in told for example in examples)


def test_help_of_the_tracer_is_its_own(whoneeds):
    """Words behind trace go to the tracer as they are, options and --help among them."""
    done = whoneeds("trace", "run", "--help")
    assert done.code == 0
    assert "--period" in done.out
    assert whoneeds("trace", "run", "--period", "0.001", "--for", "1").code == 2


def test_reference_page_is_fresh():
    """The reference page is what the program writes now; write it anew with python -m whoneeds.cli.reference."""
    assert (DOCS / "cli.md").read_text() == reference.render()


def test_version(whoneeds):
    """The version is printed as one line."""
    assert re.fullmatch(r"whoneeds \d+\.\d+\.\d+\S*\n", whoneeds("--version").out)


def test_statement_is_broken_between_words(shop):
    """On a narrow terminal the statement under a table is broken between words."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    done = subprocess.run(
        [*COMMAND, "deps", "--store", str(shop / "store")], stdout=subprocess.DEVNULL, stderr=follower, check=True
    )
    os.close(follower)
    said = os.read(leader, 65536).decode().replace("\r\n", "\n")
    os.close(leader)
    assert done.returncode == 0
    assert max(map(len, said.splitlines())) <= 40
    assert "Seen: 3 hosts, 36 samples" in " ".join(said.split())
