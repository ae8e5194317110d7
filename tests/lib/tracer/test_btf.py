# SPDX-License-Identifier: GPL-3.0-or-later
"""Places of fields come out of the kernel's description of its types, and nothing else comes out of damaged ones."""

import random
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whoneeds.model.errors import HostError, Unsupported
from whoneeds.tracer.bpf.btf import FUNC, PATH, STRUCT, TYPEDEF, UNION, KernelTypes, read_kernel_types

HEADER = struct.Struct("=HBBIIIII")
INT, CONST = 1, 10
#: What the programs ask for, a part of it.
ASKED = (
    ("sock", "__sk_common.skc_daddr"), ("sock", "sk_lock.owned"), ("sock", "__sk_common.skc_net.net"),
    ("tcp_sock", "inet_conn.icsk_inet.inet_sport"), ("task_struct", "start_boottime"), ("file", "f_path.dentry"),
    ("dentry", "d_name.name"), ("pid", "numbers"),
)  # fmt: skip


class Made:
    """A description of types made by hand, as the documentation lays it out."""

    def __init__(self):
        self.types, self.strings, self.count = b"", b"\0", 0

    def text(self, name):
        """Where a name begins among the strings."""
        if not name:
            return 0
        self.strings += name.encode() + b"\0"
        return len(self.strings) - len(name) - 1

    def add(self, kind, name="", size_or_type=0, members=(), more=b"", bitfields=False):
        """A type, and its number."""
        info = kind << 24 | len(members) | bitfields << 31
        self.types += struct.pack("=III", self.text(name), info, size_or_type) + more
        for member, type_id, bits in members:
            self.types += struct.pack("=III", self.text(member), type_id, bits)
        self.count += 1
        return self.count

    def raw(self):
        """All of it."""
        return HEADER.pack(0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings)) + (
            self.types + self.strings
        )


@pytest.fixture(scope="module")
def vmlinux():
    """What the running kernel says of its types."""
    try:
        return Path(PATH).read_bytes()
    except OSError as error:
        pytest.skip(f"this kernel does not tell its types: {error.strerror}")


@pytest.fixture(scope="module")
def types(vmlinux):
    """The same, read."""
    return KernelTypes(vmlinux)


@pytest.mark.parametrize(
    ("structure", "path", "place"),
    [
        # these cannot change: programs of users see them (include/uapi)
        ("sockaddr_in", "sin_port", 2), ("sockaddr_in", "sin_addr.s_addr", 4), ("sockaddr_in6", "sin6_addr", 8),
        ("inet_diag_sockid", "idiag_dst", 20), ("inet_diag_sockid", "idiag_cookie", 40), ("iphdr", "daddr", 16),
        ("inet_diag_msg", "id.idiag_dport", 6), ("inet_diag_msg", "idiag_inode", 68), ("tcphdr", "dest", 2),
        ("tcp_info", "tcpi_bytes_acked", 120), ("tcp_info", "tcpi_bytes_received", 128), ("nlmsghdr", "nlmsg_seq", 8),
    ],
)  # fmt: skip
def test_places_that_cannot_change_are_found(types, structure, path, place):
    """Fields of structures that the kernel shares with programs of users lie where they always did."""
    assert types.offset(structure, path) == place


def test_sizes_that_cannot_change_are_found(types):
    """Structures that the kernel shares with programs of users have the size that they always had."""
    assert [types.size(name) for name in ("sockaddr_in", "sockaddr_in6", "iphdr", "inet_diag_sockid")] == [
        16, 28, 20, 48,
    ]  # fmt: skip


def read_plainly(raw):
    """All types by number, as (kind, name, size or type, members), read in the plainest way."""
    _magic, _version, _flags, length, types, type_bytes, strings, _string_bytes = HEADER.unpack_from(raw)
    at, end, text = length + types, length + types + type_bytes, raw[length + strings :]

    def name_at(place):
        return text[place : text.index(b"\0", place)].decode()

    found = [None]
    while at < end:
        name, info, size_or_type = struct.unpack_from("=III", raw, at)
        at += 12
        kind, count, members = info >> 24 & 0x1F, info & 0xFFFF, []
        if kind in (STRUCT, UNION):
            for number in range(count):
                member, type_id, place = struct.unpack_from("=III", raw, at + 12 * number)
                members.append((name_at(member), type_id, place & 0xFFFFFF if info >> 31 else place))
        at += {1: 4, 3: 12, 14: 4, 17: 4}.get(kind, 0)
        at += count * {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}.get(kind, 0)
        found.append((kind, name_at(name), size_or_type, members))
    return found


def test_every_field_lies_where_a_second_reader_finds_it(vmlinux, types):
    """Of four hundred structures and all that the programs ask for, each field's place is that of another reader."""
    plain = read_plainly(vmlinux)
    first = {}
    for number, (kind, name, _size, _members) in enumerate(plain[1:], 1):
        if kind == STRUCT and name:
            first.setdefault(name, number)
    wanted = {name for name, _path in ASKED} | set(random.Random(1).sample(sorted(first), 400))
    compared = 0
    for structure in sorted(wanted):
        _kind, _name, size, members = plain[first[structure]]
        assert types.find_id(STRUCT, structure) == first[structure]
        assert types.size(structure) == size
        waiting, begun = list(reversed(members)), {}
        while waiting:  # fields of structures without a name lie in the one around them
            name, type_id, place = waiting.pop()
            if name:
                begun.setdefault(name, place)
            elif plain[type_id][0] in (STRUCT, UNION):
                waiting += [(inner, number, place + own) for inner, number, own in reversed(plain[type_id][3])]
        for name, place in begun.items():
            if place % 8:
                with pytest.raises(Unsupported, match="at a byte"):
                    types.offset(structure, name)
            else:
                assert types.offset(structure, name) == place // 8, f"{structure}.{name}"
            compared += 1
    assert compared > 2000


def test_functions_and_types_of_tracepoints_have_their_numbers(vmlinux, types):
    """What a program is attached to has the number under which it stands in the kernel's list."""
    plain = read_plainly(vmlinux)
    for kind, name in ((TYPEDEF, "btf_trace_inet_sock_set_state"), (FUNC, "bpf_iter_task_file")):
        assert plain[types.find_id(kind, name)][:2] == (kind, name)


@pytest.mark.parametrize(
    ("structure", "path"),
    [("no_such_structure", "x"), ("sock", "no_such_field"), ("sock", "sk_prot.name"), ("sock", "sk_protocol.x")],
)
def test_what_is_not_there_is_named(types, structure, path):
    """A structure or field that this kernel does not have, or one behind a pointer, is an error that names it."""
    with pytest.raises(Unsupported, match=structure if structure.startswith("no") else re.escape(path)):
        types.offset(structure, path)


def test_structures_without_a_name_and_other_names_are_looked_through():
    """A field is found behind typedefs and const, and within structures that have no name of their own."""
    made = Made()
    number = made.add(INT, "int", 4, more=bytes(4))
    inner = made.add(STRUCT, "", 8, [("a", number, 0), ("b", number, 32)])
    other = made.add(CONST, "", made.add(TYPEDEF, "inner_t", inner))
    made.add(STRUCT, "outer", 32, [("first", number, 0), ("", inner, 64), ("named", other, 128)])
    types = KernelTypes(made.raw())
    assert [types.offset("outer", path) for path in ("first", "a", "b", "named.b")] == [0, 8, 12, 20]


def test_a_field_of_bits_has_its_place_only_at_a_byte():
    """Of fields of bits, one that begins at a byte is found, and another is refused."""
    made = Made()
    number = made.add(INT, "int", 4, more=bytes(4))
    made.add(STRUCT, "flags", 4, [("low", number, 3 << 24), ("high", number, 5 << 24 | 3), ("next", number, 8)],
             bitfields=True)  # fmt: skip
    types = KernelTypes(made.raw())
    assert (types.offset("flags", "low"), types.offset("flags", "next")) == (0, 1)
    with pytest.raises(Unsupported, match="bit 3"):
        types.offset("flags", "high")


@pytest.mark.parametrize("width", [1, 2, 60])
def test_circles_come_to_an_end(width):
    """Structures that hold themselves, and names that stand for themselves, hold no field and no reader up."""
    made = Made()
    made.add(STRUCT, "circle", 8, [("", 1 + number % 3, 0) for number in range(width)])
    made.add(STRUCT, "", 8, [("", 1, 0), ("", 3, 0)] * width)
    made.add(TYPEDEF, "name", 4)
    made.add(TYPEDEF, "other_name", 3)
    made.add(STRUCT, "behind", 8, [("x", 3, 0)])
    types = KernelTypes(made.raw())
    for structure, path in (("circle", "x"), ("behind", "x.y")):
        with pytest.raises(Unsupported, match="field"):
            types.offset(structure, path)


def test_a_long_chain_is_given_up():
    """A field so deep within structures without a name that no kernel has it there is not looked for to the end."""
    made = Made()
    number = made.add(INT, "int", 4, more=bytes(4))
    for depth in range(3000):
        made.add(STRUCT, "top" if depth == 0 else "", 8, [("", depth + 3, 0)])
    made.add(STRUCT, "", 8, [("bottom", number, 0)])
    with pytest.raises(Unsupported, match="bottom"):
        KernelTypes(made.raw()).offset("top", "bottom")


def ask(raw, asked=ASKED):
    """Read bytes and ask for places: answered or refused, and nothing else; how many were answered."""
    answered = 0
    try:
        types = KernelTypes(raw)
    except Unsupported:
        return answered
    for structure, path in asked:
        questions = ((types.offset, structure, path), (types.size, structure), (types.find_id, TYPEDEF, structure))
        for question, *words in questions:
            try:
                assert 0 <= question(*words) < 1 << 40
                answered += 1
            except Unsupported:
                continue
    return answered


def begin_of(vmlinux, count=600):
    """The first types of a kernel with their names, as a description of its own, and fields that are in it."""
    magic, version, flags, length, types, _type_bytes, strings, _string_bytes = HEADER.unpack_from(vmlinux)
    at, last = length + types, 0
    for _number in range(count):
        name, info, _size = struct.unpack_from("=III", vmlinux, at)
        kind, members = info >> 24 & 0x1F, info & 0xFFFF
        if kind in (STRUCT, UNION):
            last = max(last, *(struct.unpack_from("=I", vmlinux, at + 12 + 12 * n)[0] for n in range(members)), 0)
        last = max(last, name)
        at += 12 + {1: 4, 3: 12, 14: 4, 17: 4}.get(kind, 0)
        at += members * {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}.get(kind, 0)
    body, text = vmlinux[length + types : at], vmlinux[length + strings :][: last + 64].rpartition(b"\0")[0] + b"\0"
    raw = HEADER.pack(magic, version, flags, 24, 0, len(body), len(body), len(text)) + body + text
    asked = [
        (name, members[-1][0])
        for kind, name, _size, members in read_plainly(raw)[1:]
        if kind == STRUCT and name and members and members[-1][0]
    ]
    return raw, asked


def test_the_kernel_s_own_description_is_refused_wherever_it_is_cut(vmlinux):
    """Cut anywhere, the description is refused: no place comes out of a part of it."""
    rng = random.Random(2)
    for length in [0, 1, 2, 23, 24, 25, len(vmlinux) - 1, *(rng.randrange(len(vmlinux)) for _ in range(40))]:
        with pytest.raises(Unsupported, match="BTF"):
            KernelTypes(vmlinux[:length])


def test_damage_ends_in_a_refusal_or_a_place(vmlinux):
    """Bytes of the kernel's description that were changed, left out or doubled never end in another error."""
    rng = random.Random(3)
    part, asked = begin_of(vmlinux)
    assert ask(part, asked) > len(asked) > 50
    outcomes = set()
    for trial in range(600):
        damaged = bytearray(part)
        at = rng.randrange(24 if trial % 4 == 0 else len(part))
        length = rng.choice((1, 2, 4, 12, 64))
        way = trial % 3
        if way == 0:
            damaged[at : at + length] = rng.randbytes(length)
        elif way == 1:
            del damaged[at : at + length]
        else:
            damaged[at:at] = damaged[at : at + length]
        outcomes.add(ask(bytes(damaged), asked))
    assert 0 in outcomes
    assert len(outcomes) > 5
    for _trial in range(6):  # and the whole of it, which takes a moment each
        damaged = bytearray(vmlinux)
        for _change in range(20):
            damaged[rng.randrange(24, len(vmlinux))] = rng.randrange(256)
        ask(bytes(damaged))


@given(st.binary(max_size=400))
def test_any_bytes_are_refused(noise):
    """Noise, with or without a right beginning, is no description of types."""
    if noise[:2] != struct.pack("=H", 0xEB9F):
        with pytest.raises(Unsupported):
            KernelTypes(noise)
    ask(HEADER.pack(0xEB9F, 1, 0, 24, 0, len(noise), 0, len(noise)) + noise)


WORD = st.integers(0, 2**32 - 1)
TYPE = st.tuples(
    st.integers(0, 40), st.integers(0, 21), st.integers(0, 4), st.booleans(), st.integers(0, 9) | WORD,
    st.lists(st.tuples(st.integers(0, 40) | WORD, st.integers(0, 9) | WORD, WORD), max_size=4),
)  # fmt: skip


@settings(max_examples=300)
@given(st.lists(TYPE, max_size=10), st.integers(0, 8))
def test_made_up_types_are_refused_or_give_places(made, more):
    """Types that point anywhere, at themselves too, are refused or looked through in bounded time."""
    text = b"\0sock\0__sk_common\0task_struct\0file\0f_path\0"
    body = b""
    for name, kind, count, bitfields, size_or_type, members in made:
        body += struct.pack("=III", name, kind << 24 | count | bitfields << 31, size_or_type)
        for member in members[: count if kind in (STRUCT, UNION) else 4]:
            body += struct.pack("=III", *member)
    body += bytes(more)
    ask(HEADER.pack(0xEB9F, 1, 0, 24, 0, len(body), len(body), len(text)) + body + text)


def test_lengths_that_lie_are_refused(vmlinux):
    """A header that promises more than is there, or the other byte order, is refused at once."""
    magic, version, flags, length, types, type_bytes, strings, string_bytes = HEADER.unpack_from(vmlinux)
    for header in (
        (magic, version, flags, length, types, 2**32 - 1, strings, string_bytes),
        (magic, version, flags, length, types, type_bytes, 2**32 - 1, string_bytes),
        (magic, version, flags, 2**32 - 1, types, type_bytes, strings, string_bytes),
        (magic, version, flags, length, types, type_bytes - 4, strings, string_bytes),
        (0x9FEB, version, flags, length, types, type_bytes, strings, string_bytes),
    ):
        with pytest.raises(Unsupported, match="BTF"):
            KernelTypes(HEADER.pack(*header) + vmlinux[24:])


@pytest.mark.parametrize("kind", [0, 20, 31])
def test_a_kind_that_is_not_known_is_refused(kind):
    """Behind a kind of type whose length is not known nothing can be read, so all is refused."""
    made = Made()
    made.add(kind, "new")
    made.add(STRUCT, "sock", 8)
    with pytest.raises(Unsupported, match=f"kind {kind}"):
        KernelTypes(made.raw())


def test_a_kernel_that_does_not_tell_is_unsupported(tmp_path):
    """Where there is no description, or another file in its place, the error says what was looked for."""
    with pytest.raises(Unsupported, match="vmlinux"):
        read_kernel_types(str(tmp_path / "vmlinux"))
    with pytest.raises(HostError):
        read_kernel_types(str(tmp_path))
    (tmp_path / "vmlinux").write_bytes(b"\x7fELF" * 100)
    with pytest.raises(Unsupported, match="7f45"):
        read_kernel_types(str(tmp_path / "vmlinux"))
