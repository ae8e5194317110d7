# SPDX-License-Identifier: GPL-3.0-or-later
"""Names out of DNS answers and TLS hellos: what others write is read, and whatever else comes does no harm."""

import contextlib
import itertools
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR

from whoneeds.model.identity import DOMAIN_NAME
from whoneeds.tracer.client_hello import server_name
from whoneeds.tracer.dns_answers import parse_answer
from whoneeds.tracer.names import NameBook, legal_name

LABELS = st.text("abcxyz019_", min_size=1, max_size=12)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(lambda labels: ".".join([*labels, "test"]))
V4 = st.integers(0, 2**32 - 1).map(lambda number: ".".join(str(byte) for byte in number.to_bytes(4, "big")))


def answer(question, records):
    """An answer as scapy writes it, names compressed."""
    from scapy.layers.dns import dns_compress

    made = DNS(id=1, qr=1, qd=DNSQR(qname=question), an=records)
    return bytes(dns_compress(made))


@given(NAMES, st.lists(NAMES, max_size=3, unique=True), st.lists(V4, min_size=1, max_size=4), NAMES)
def test_the_name_asked_for_stands_for_the_addresses_at_the_end_of_its_aliases(name, chain, addresses, other):
    """Of an answer that scapy made with a chain of aliases, all addresses at its end get the name asked for."""
    chain = [one for one in chain if one not in (name, other)]
    owners = [name, *chain]
    records = [DNSRR(rrname=a, type="CNAME", rdata=b) for a, b in itertools.pairwise(owners)]
    records += [DNSRR(rrname=owners[-1], type="A", rdata=address) for address in addresses]
    if other not in owners:
        records.append(DNSRR(rrname=other, type="A", rdata="192.0.2.99"))
    found = parse_answer(answer(name, records))
    assert found.whole
    assert [one for one in found.names if one[1] != "192.0.2.99" or "192.0.2.99" in addresses] == [
        (name.encode(), address) for address in addresses
    ]


def test_an_ipv6_address_is_canonical():
    """An AAAA record gives the address in the spelling that the rest of the project uses."""
    records = [DNSRR(rrname="db.test", type="AAAA", rdata="2001:db8:0:0:0:0:0:1")]
    assert parse_answer(answer("DB.test", records)).names == [(b"db.test", "2001:db8::1")]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("a pointer to itself", b"\0\1\x80\0\0\1\0\1\0\0\0\0" + b"\xc0\x0c\0\1\0\1"),
        ("a pointer forward", b"\0\1\x80\0\0\1\0\1\0\0\0\0" + b"\xc0\x20\0\1\0\1" + b"\1a\0" * 9),
        (
            "a pointer forward to a good name",
            b"\0\1\x80\0\0\1\0\1\0\0\0\0" + b"\xc0\x22\0\1\0\1" + b"\xc0\x22\0\1\0\1\0\0\0\0\0\4\xc0\0\2\1" + b"\1a\0",
        ),
        ("a label type that nobody uses", b"\0\1\x80\0\0\1\0\1\0\0\0\0" + b"\x41a\0\0\1\0\1"),
        ("a name without end", b"\0\1\x80\0\0\1\0\1\0\0\0\0" + b"\x3f" + b"a" * 63),
        ("a question", b"\0\1\1\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1"),
        ("an error", b"\0\1\x80\3\0\1\0\0\0\0\0\0\1a\0\0\1\0\1"),
        ("a head cut short", b"\0\1\x80\0\0\1"),
    ],
)
def test_what_is_no_answer_gives_nothing(what, message):
    """Pointers that do not lead backwards, unknown labels, questions, errors and stumps give no name."""
    assert parse_answer(message).names == [], what


def test_two_pointers_that_name_each_other_end():
    """A loop of two pointers gives no name, and ends."""
    message = b"\0\1\x80\0\0\0\0\2\0\0\0\0" + b"\xc0\x0e" + b"\xc0\x0c" + b"\0" * 10
    assert parse_answer(message).names == []


@given(st.binary(max_size=600))
def test_any_bytes_are_survived(data):
    """Whatever comes instead of an answer or a hello, a name that gets into the book is a legal one."""
    book = NameBook()
    for lead in (b"", b"\0\1\x80\0\0\0\0\7\0\0\0\0", b"\x16\3\1\1\0\1\0\1\0\3\3"):
        for name, address in parse_answer(lead + data).names:
            book.add(name, address, "dns", 1)
        found = server_name(lead + data)
        if found is not None:
            book.add(found, "192.0.2.1", "sni", 1)
    assert all(DOMAIN_NAME.match(row[0]) for row in book.take())


@given(st.data(), NAMES, st.lists(V4, min_size=1, max_size=3))
def test_a_damaged_answer_gives_whole_names_or_none(data, name, addresses):
    """Of an answer with changed or missing bytes every address is a real one, and nothing fails."""
    message = bytearray(answer(name, [DNSRR(rrname=name, type="A", rdata=one) for one in addresses]))
    for _change in range(data.draw(st.integers(0, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(message)))
    for _name, address in parse_answer(bytes(message[:cut])).names:
        assert address.count(".") == 3 or ":" in address


def hello(name):
    """A ClientHello as OpenSSL writes it."""
    out = ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    made = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        made.do_handshake()
    return out.read()


def test_the_server_name_of_a_real_hello_is_read():
    """The name that OpenSSL puts into its hello is found, and where it puts none there is none."""
    assert server_name(hello("db1.example.test")) == b"db1.example.test"
    assert server_name(hello(None)) is None


def test_a_hello_cut_anywhere_gives_the_name_or_nothing():
    """However much of a hello is there, what is read is its name or nothing, never a part of it."""
    whole = hello("db1.example.test")
    found = {server_name(whole[:length]) for length in range(len(whole))}
    assert found == {None, b"db1.example.test"}


@pytest.mark.parametrize(
    "raw",
    [
        b"", b".", b"a..b", b"-a.test", b"a-.test", b"a b", b"{{ 7*7 }}", b"a\nb", b"\xff\xfe", b"a" * 64,
        b".".join([b"a" * 50] * 6), b"10.0.0.1", b"a\0b.test", b"`id`.test", "löst.test".encode(),
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused_and_counted(raw):
    """Text that is no domain name never becomes one, and is counted."""
    book = NameBook()
    book.add(raw, "192.0.2.1", "dns", 1)
    assert legal_name(raw) is None
    assert (book.take(), book.refused) == ([], 1)


def test_multicast_name_services_speak_for_local_names_only():
    """Who answers by multicast may be anybody, so that only names of the link are taken from there."""
    book = NameBook()
    book.add(b"printer.local", "192.0.2.1", "dns", 1, 5353)
    book.add(b"bank.test", "192.0.2.1", "dns", 1, 5353)
    book.add(b"bank.test", "192.0.2.1", "dns", 1, 5355)
    assert [row[0] for row in book.take()] == ["printer.local"]
    assert book.refused == 2


def test_a_book_holds_no_more_than_it_may():
    """Names beyond the bound are counted, and those that are known are still seen again."""
    book = NameBook(most=2)
    for number, name in enumerate((b"a.test", b"b.test", b"c.test", b"a.test")):
        book.add(name, "192.0.2.1", "dns", number)
    assert book.take() == [("a.test", "192.0.2.1", "dns", 0, 3), ("b.test", "192.0.2.1", "dns", 1, 1)]
    assert book.left_out == 1
