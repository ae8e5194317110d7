# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetching from hosts that lie in every answer, into a real folder."""

from __future__ import annotations

import base64
import hashlib
import os

import pytest
from ansible_collections.whoneeds.discovery.plugins.plugin_utils._fetch import (
    CaptureFetch,
    Fetch,
    FetchError,
    sort_offers,
)
from ansible_collections.whoneeds.discovery.plugins.plugin_utils._intake import Intake, Occupied, host_name_problem


def make_segment(size_bytes=1000):
    """Bytes of a segment that is whole by its digest, and the digest."""
    body = b"whoneeds-segment 1\n" + os.urandom(size_bytes)
    trailer = hashlib.sha256(body).digest()
    return body + trailer, trailer.hex()


class HonestHost:
    """Offers and delivers what it has."""

    def __init__(self, *contents):
        self.files = {f"{order:020d}.seg": content for order, content in enumerate(contents)}
        self.calls = 0

    def offers(self):
        """Its list, checked as the controller checks it."""
        listed = [
            {"name": name, "size_bytes": len(content), "digest": content[-32:].hex()}
            for name, content in self.files.items()
        ]
        return sort_offers(listed, 1 << 20)[0]

    def __call__(self, asked):
        self.calls += 1
        return [
            {"content": base64.b64encode(self._part(piece)).decode() if piece["name"] in self.files else None}
            for piece in asked
        ]

    def _part(self, piece):
        return self.files[piece["name"]][piece["offset_bytes"] :][: piece["length_bytes"]]


def fetch_all(tmp_path, read_pieces, offers, piece_bytes=300, **limits):
    """Run a fetch with generous limits, and return it."""
    intake = Intake(str(tmp_path), "web1")
    fetch = Fetch(read_pieces, intake, piece_bytes)
    whole, damaged = intake.present()
    missing = [offer for offer in offers if offer["digest"] not in whole]
    fetch.run(missing, damaged, limits.get("max_host_bytes", 1 << 20), limits.get("keep_free_bytes", 0))
    return fetch


def names(tmp_path):
    """What lies in the host's folder."""
    return sorted(path.name for path in (tmp_path / "web1").iterdir())


@pytest.mark.parametrize("listed", [None, "text", 7, {"name": "a.seg"}, [None, 7, "a.seg", [], {}]])
def test_a_list_of_any_shape_offers_nothing(listed):
    """What is no list of descriptions gives no offers and raises nothing."""
    assert sort_offers(listed, 1 << 20)[0] == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "../a.seg"}, "name was refused"),
        ({"name": "a\u202e.seg"}, "name was refused"),
        ({"size_bytes": 32}, "too short"),
        ({"size_bytes": True}, "too short"),
        ({"size_bytes": "1000"}, "too short"),
        ({"size_bytes": -1}, "too short"),
        ({"size_bytes": 1 << 70}, "more than max_segment_bytes"),
        ({"digest": "A" * 64}, "names no digest"),
        ({"digest": "../" + "a" * 61}, "names no digest"),
        ({"digest": None}, "names no digest"),
    ],
)
def test_each_field_of_an_offer_is_checked(changes, reason):
    """An offer with one wrong field is refused with a reason, and the one beside it is kept."""
    good = {"name": "a.seg", "size_bytes": 1000, "digest": "a" * 64}
    offered, refused = sort_offers([dict(good, **changes), good, good], 1 << 20)
    assert offered == [dict(good, capture_bytes=None)]
    assert len(refused) == 1
    assert reason in refused[0]


def test_reasons_are_few(tmp_path):
    """A host cannot flood the log with refusals."""
    assert len(sort_offers([{"name": "?"}] * 1000, 1)[1]) == 20


def test_what_is_whole_arrives_under_its_digest(tmp_path):
    """Segments larger and smaller than a piece arrive byte for byte, and are not asked for again."""
    segments = [make_segment(size) for size in (2000, 10, 700)]
    host = HonestHost(*(content for content, _digest in segments))
    first = fetch_all(tmp_path, host, host.offers())
    assert first.fetched == [digest + ".seg" for _content, digest in segments]
    for content, digest in segments:
        assert (tmp_path / "web1" / (digest + ".seg")).read_bytes() == content
    calls = host.calls
    assert fetch_all(tmp_path, host, host.offers()).fetched == []
    assert host.calls == calls


def test_a_part_is_continued(tmp_path):
    """What an interrupted run left is not asked for again."""
    content, digest = make_segment(2000)
    (tmp_path / "web1").mkdir()
    (tmp_path / "web1" / ("." + digest + ".part")).write_bytes(content[:1500])
    host = HonestHost(content)
    fetch = fetch_all(tmp_path, host, host.offers())
    assert fetch.fetched == [digest + ".seg"]
    assert fetch.fetched_bytes == len(content) - 1500
    assert names(tmp_path) == [digest + ".seg"]


def test_a_torn_part_is_fetched_anew(tmp_path):
    """A part whose bytes are wrong does not make a good segment damaged."""
    content, digest = make_segment(2000)
    (tmp_path / "web1").mkdir()
    (tmp_path / "web1" / ("." + digest + ".part")).write_bytes(b"\0" * 1500)
    fetch = fetch_all(tmp_path, HonestHost(content), HonestHost(content).offers())
    assert fetch.fetched == [digest + ".seg"]
    assert fetch.damaged == []
    assert names(tmp_path) == [digest + ".seg"]


@pytest.mark.parametrize("at", [0, 500, -1])
def test_other_bytes_than_announced_are_kept_as_damaged_once(tmp_path, at):
    """A segment without the digest that it names is kept once under a name that says so."""
    content, digest = make_segment()
    spoiled = bytearray(content)
    spoiled[at] ^= 1
    host = HonestHost(bytes(spoiled))
    assert fetch_all(tmp_path, host, host.offers()).fetched == []
    assert fetch_all(tmp_path, host, host.offers()).damaged == []
    assert len(names(tmp_path)) == 1
    assert names(tmp_path)[0].startswith("damaged-")
    assert digest + ".seg" not in names(tmp_path)


def test_a_whole_file_of_another_kind_is_damaged(tmp_path):
    """A file that has the digest that it names and does not begin as a segment is kept as damaged."""
    body = b"another-file 1\n" + b"x" * 100
    host = HonestHost(body + hashlib.sha256(body).digest())
    assert len(fetch_all(tmp_path, host, host.offers()).damaged) == 1


@pytest.mark.parametrize(
    "answer",
    [None, [], "text", [{"content": "A" * 10_000}], [{"content": 7}], [{"content": "no base64!"}], [{}, {}]],
)
def test_an_answer_of_another_shape_keeps_nothing(tmp_path, answer):
    """More pieces, more bytes or other types than were asked for end the fetch with an error, and nothing is kept."""
    content, _digest = make_segment(100)
    with pytest.raises(FetchError):
        fetch_all(tmp_path, lambda asked: answer, HonestHost(content).offers())
    assert names(tmp_path) == []


def test_a_segment_that_vanished_is_no_error(tmp_path):
    """What the tracer's budget deleted since the list was made is passed over, and the next one is fetched."""
    contents = [make_segment(1000)[0] for _order in range(2)]
    host = HonestHost(*contents)
    offers = host.offers()
    del host.files[offers[0]["name"]]
    assert fetch_all(tmp_path, host, offers).fetched == [offers[1]["digest"] + ".seg"]
    assert names(tmp_path) == [offers[1]["digest"] + ".seg"]


def test_the_cap_takes_the_oldest_and_room_is_kept(tmp_path):
    """The cap of a run leaves the newest for later, and a disk without room fetches nothing."""
    host = HonestHost(*(make_segment(1000)[0] for _order in range(3)))
    offers = host.offers()
    fetch = fetch_all(tmp_path, host, offers, max_host_bytes=2 * offers[0]["size_bytes"])
    assert (len(fetch.fetched), fetch.postponed) == (2, 1)
    with pytest.raises(FetchError, match="too little room"):
        fetch_all(tmp_path, host, offers, keep_free_bytes=1 << 62)


def test_parts_that_nobody_offers_any_more_are_dropped(tmp_path):
    """A part of a segment that the host no longer has goes; files that are no parts stay."""
    (tmp_path / "web1").mkdir()
    (tmp_path / "web1" / ("." + "a" * 64 + ".part")).write_bytes(b"x")
    (tmp_path / "web1" / ".other").write_bytes(b"x")
    host = HonestHost(make_segment()[0])
    fetch_all(tmp_path, host, host.offers())
    assert names(tmp_path)[0] == ".other"
    assert len(names(tmp_path)) == 2


def test_a_folder_that_is_a_link_is_refused(tmp_path):
    """A host's folder on the controller that is a link is not written through."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "web1").symlink_to(tmp_path / "elsewhere")
    host = HonestHost(make_segment()[0])
    with pytest.raises(OSError):  # noqa: PT011 the kernel chooses between two errors
        fetch_all(tmp_path, host, host.offers())
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_two_collections_of_one_host_exclude_each_other(tmp_path):
    """While one collection works in a host's folder a second is refused, and another host's is not."""
    first, second, other = Intake(str(tmp_path), "web1"), Intake(str(tmp_path), "web1"), Intake(str(tmp_path), "web2")
    first.open()
    with pytest.raises(Occupied, match="wait until it has ended"):
        second.open()
    other.open()
    other.close()
    first.close()
    second.open()
    second.close()


@pytest.mark.parametrize("name", ["web1", "db-1.example.org", "A_b", "7"])
def test_names_of_the_field_are_good(name):
    """Names that hosts really have can be folders."""
    assert host_name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a..b", "a/b", "../a", "-a", ".a", "a b", "a\n", "{{ a }}", "\u00fc", "a" * 254, None, 7, b"a"],
)
def test_names_that_lead_elsewhere_are_refused(name):
    """A name that is a path, an option, a template or no text is refused in printable words."""
    problem = host_name_problem(name)
    assert problem is not None
    assert "expected letters" in problem
    assert problem.isascii()
    assert problem.isprintable()


def offer_with_capture(capture_bytes):
    """One segment as a host lists it, with the size that it says its capture file has."""
    listed = {"name": "a.seg", "size_bytes": 100, "digest": "a" * 64, "capture_bytes": capture_bytes}
    return sort_offers([listed], 1 << 20)


@pytest.mark.parametrize("capture_bytes", [None, 0, -1, True, "7", 1.5, 1 << 70])
def test_a_capture_file_of_no_possible_size_is_not_offered(capture_bytes):
    """Whatever a host says of a capture file, its segment is offered all the same."""
    offered, refused = offer_with_capture(capture_bytes)
    assert [offer["capture_bytes"] for offer in offered] == [None]
    assert bool(refused) == (capture_bytes == 1 << 70)


def test_capture_files_are_fetched_for_segments_that_are_here(tmp_path):
    """A capture file comes in pieces under its segment's digest, once, and only if the segment is here."""
    content = os.urandom(1000)
    offered, _refused = offer_with_capture(len(content))
    host = HonestHost()
    host.files = {"a.pcap": content}
    intake = Intake(str(tmp_path), "web1")
    fetch = CaptureFetch(host, intake, 300)
    assert fetch.offers(offered, set(), set()) == []
    fetch.run(fetch.offers(offered, {"a" * 64}, intake.captures()), (), 1 << 20, 0)
    assert names(tmp_path) == fetch.fetched == ["a" * 64 + ".pcap"]
    assert (tmp_path / "web1" / fetch.fetched[0]).read_bytes() == content
    assert (host.calls, fetch.fetched_bytes) == (4, 1000)
    assert fetch.offers(offered, {"a" * 64}, intake.captures()) == []


def test_a_capture_file_that_is_gone_is_left_out(tmp_path):
    """What was rotated away since it was listed leaves nothing behind and stops nothing."""
    offered, _refused = offer_with_capture(1000)
    fetch = CaptureFetch(HonestHost(), Intake(str(tmp_path), "web1"), 300)
    fetch.run(fetch.offers(offered, {"a" * 64}, set()), (), 1 << 20, 0)
    assert (fetch.fetched, names(tmp_path)) == ([], [])


def test_parts_of_the_other_kind_are_kept(tmp_path):
    """Fetching capture files leaves alone what an interrupted run has of a segment, and the other way round."""
    intake = Intake(str(tmp_path), "web1")
    intake.open()
    for key in ("b" * 64, "c" * 64 + ".pcap"):
        intake.append(key, 0, b"begun")
    intake.drop_stale_parts(set(), ".pcap")
    assert names(tmp_path) == ["." + "b" * 64 + ".part"]
    intake.drop_stale_parts(set())
    assert names(tmp_path) == []
    intake.close()
