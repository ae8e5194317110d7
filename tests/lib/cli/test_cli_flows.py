# SPDX-License-Identifier: GPL-3.0-or-later
"""The verb ``flows``, on captures that are written here byte by byte."""

import csv
import gzip
import io
import json
import struct
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from whoneeds.model.evidence import WireFlow
from whoneeds.model.schema import columns

_SYN, _ACK, _FIN, _PSH = 2, 16, 1, 8
_CALLER, _SERVER = (bytes((10, 0, 0, 1)), 40000), (bytes((10, 0, 0, 2)), 80)


def segment(source, target, seq, ack, flags, payload=b""):
    """An IP packet that carries a piece of a TCP connection."""
    header = struct.pack("!HHIIBBHHH", source[1], target[1], seq, ack, 80, flags, 8192, 0, 0)
    body = header + payload
    return struct.pack("!BBHHHBBH4s4s", 69, 0, 20 + len(body), 0, 0, 64, 6, 0, source[0], target[0]) + body


def capture(packets):
    """A capture of raw IP packets, a millisecond apart."""
    made = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    for number, packet in enumerate(packets):
        made += struct.pack("<IIII", 1_700_000_000, 1000 * number, len(packet), len(packet)) + packet
    return made


TALK = capture(
    [
        segment(_CALLER, _SERVER, 99, 0, _SYN),
        segment(_SERVER, _CALLER, 499, 100, _SYN | _ACK),
        segment(_CALLER, _SERVER, 100, 500, _ACK),
        segment(_CALLER, _SERVER, 100, 500, _ACK | _PSH, b"question"),
        segment(_SERVER, _CALLER, 500, 108, _ACK | _PSH, b"the answer"),
        segment(_CALLER, _SERVER, 108, 510, _ACK | _FIN),
        segment(_SERVER, _CALLER, 510, 109, _ACK | _FIN),
        segment(_CALLER, _SERVER, 109, 511, _ACK),
    ]
)


def run(*words, content=b""):
    """The command as users call it: exit code, output, and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "whoneeds", "flows", *map(str, words)], input=content, capture_output=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.fixture
def talk(tmp_path):
    """A capture of one conversation."""
    path = tmp_path / "talk.pcap"
    path.write_bytes(TALK)
    return path


def test_a_conversation_is_a_row_of_csv(talk):
    """A whole TCP conversation is one row, with who began, its payload, and how it ended."""
    code, out, said = run(talk)
    (row,) = csv.DictReader(io.StringIO(out.decode()))
    assert (code, said, list(row)) == (0, "", [column.name for column in columns(WireFlow)])
    assert (row["flow_id"], row["protocol"], row["direction"], row["end"]) == ("talk.pcap#0", "tcp", "handshake", "fin")
    assert (row["orig_addr"], row["orig_port"], row["resp_addr"], row["resp_port"]) == (
        "10.0.0.1", "40000", "10.0.0.2", "80",
    )  # fmt: skip
    assert [row[f"{side}_{what}"] for what in ("packets", "bytes") for side in ("orig", "resp")] == [
        "5",
        "3",
        "8",
        "10",
    ]
    assert (row["handshake"], row["closed_by"], row["missed_bytes"], row["vlan"]) == ("full", "both", "0", "")


def test_every_form_says_the_same(talk, tmp_path):
    """JSON, Parquet, a compressed capture and one on standard input give the same row."""
    squeezed = tmp_path / "talk.pcap.gz"
    squeezed.write_bytes(gzip.compress(TALK))
    table = tmp_path / "flows.parquet"
    code, _, said = run("--format", "parquet", "--out", table, talk)
    assert (code, said) == (0, "")
    (row,) = pq.read_table(table).to_pylist()
    for words, content in (((talk,), b""), ((squeezed,), b""), (("-",), TALK)):
        (other,) = json.loads(run("--format", "json", *words, content=content)[1])
        assert {**other, "flow_id": ""} == {**row, "flow_id": ""}


def test_a_damaged_capture_is_read_up_to_there(talk, tmp_path):
    """A capture that ends within a record gives what came before, says where it ends, and the exit code is 4."""
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(TALK[:-7])
    code, out, said = run(cut, talk)
    assert (code, len(list(csv.DictReader(io.StringIO(out.decode()))))) == (4, 2)
    assert said == f"cut.pcap: at byte {len(TALK) - 56}: the file ends within a record\n"


def test_what_is_no_capture_is_refused(tmp_path):
    """A file of another kind, and none at all, are errors that say what was found; nothing is written."""
    other, out = tmp_path / "=other", tmp_path / "flows.csv"
    other.write_bytes(b"hello, world")
    code, _, said = run("--out", out, other)
    assert (code, out.exists()) == (1, False)
    assert "a file that begins with 68 65 6c 6c" in said
    code, _, said = run(tmp_path / "nothere")
    assert (code, "No such file" in said) == (1, True)


def test_no_captures_name_becomes_a_formula(tmp_path):
    """A capture whose name a spreadsheet would take for a formula does not reach the table as one."""
    path = tmp_path / "=1+1.pcap"
    path.write_bytes(TALK)
    (row,) = csv.DictReader(io.StringIO(run(path)[1].decode()))
    assert row["flow_id"] == "'=1+1.pcap#0"
