# SPDX-License-Identifier: GPL-3.0-or-later
"""What the running kernel says of its own types (BTF): where a field lies, which number a type has.

Kernels move fields from version to version, so no offset is written down anywhere in this project. Pure: bytes in,
numbers out, every length checked. The layout is that of the kernel's documentation, ``Documentation/bpf/btf.rst``.
"""

import struct
from typing import Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from whoneeds.model.errors import Denied, Unsupported

PATH = "/sys/kernel/btf/vmlinux"
_MAX_BYTES = 64 << 20
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
_MEMBER = struct.Struct("=III")
_MAGIC = 0xEB9F
STRUCT, UNION, TYPEDEF, FUNC = 4, 5, 8, 12
_QUALIFIERS = (8, 9, 10, 11, 18)
#: Bytes that follow a type by its kind: a fixed number, and one for each of its members.
_FIXED = {1: 4, 3: 12, 14: 4, 17: 4}
_EACH = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
_KINDS = 19
_MAX_DEPTH = 16
#: Structures without a name that are looked through for one field; real ones have two dozen.
_MAX_NESTED = 100


class _Member(NamedTuple):
    name: str
    type_id: int
    bits: int


class KernelTypes:
    """The types of a kernel.

    Parameters
    ----------
    raw : bytes
        As ``/sys/kernel/btf/vmlinux`` has them.

    Raises
    ------
    Unsupported
        If these are no such bytes.
    """

    def __init__(self, raw: bytes) -> None:
        try:
            magic, _version, _flags, length, types, type_bytes, strings, string_bytes = _HEADER.unpack_from(raw)
        except struct.error as error:
            raise _broken(str(error)) from error
        if magic != _MAGIC or length + max(types + type_bytes, strings + string_bytes) > len(raw):
            raise _broken(f"{len(raw)} bytes that begin with {raw[:2].hex()}")
        self._raw = raw
        self._strings = length + strings
        self._strings_end = self._strings + string_bytes
        self._places: List[int] = [0]
        self._named: Dict[Tuple[int, int], int] = {}
        self._index(length + types, length + types + type_bytes)

    def _index(self, at: int, end: int) -> None:
        places, named, unpack = self._places, self._named, _TYPE.unpack_from
        while at < end:
            try:
                name, info, _size = unpack(self._raw, at)
            except struct.error as error:
                raise _broken(str(error)) from error
            kind = info >> 24 & 0x1F
            if not 0 < kind <= _KINDS:
                raise _broken(f"kind {kind}")
            if name and kind in (STRUCT, TYPEDEF, FUNC):
                named.setdefault((kind, name), len(places))
            places.append(at)
            at += 12 + _FIXED.get(kind, 0) + _EACH.get(kind, 0) * (info & 0xFFFF)
        if at != end:
            raise _broken("types that end elsewhere than said")

    def has_type(self, kind: int, name: str) -> bool:
        """Whether this kernel has a type of that name."""
        return self._find(kind, name) is not None

    def find_id(self, kind: int, name: str) -> int:
        """The number of a type.

        Raises
        ------
        Unsupported
            If this kernel has none of that name.
        """
        found = self._find(kind, name)
        if found is None:
            raise Unsupported("kernel types", expected=f"a type {name}", found="none")
        return found

    def _find(self, kind: int, name: str) -> Optional[int]:
        wanted, at = b"\0" + name.encode("ascii") + b"\0", self._strings
        while True:
            at = self._raw.find(wanted, at, self._strings_end)
            if at < 0:
                return None
            number = self._named.get((kind, at + 1 - self._strings))
            if number is not None:
                return number
            at += 1

    def offset(self, structure: str, path: str) -> int:
        """Where a field lies in a structure, in bytes.

        Parameters
        ----------
        structure : str
        path : str
            Names of fields, with dots between them; structures without a name are looked through.

        Raises
        ------
        Unsupported
            If this kernel has no such field, or it does not begin at a byte.
        """
        type_id, bits = self.find_id(STRUCT, structure), 0
        for name in path.split("."):
            found = self._find_member(type_id, name, set())
            if found is None:
                raise Unsupported("kernel types", expected=f"a field {path} in {structure}", found="none")
            type_id, bits = found.type_id, bits + found.bits
        if bits % 8:
            raise Unsupported("kernel types", expected=f"{path} in {structure} at a byte", found=f"bit {bits}")
        return bits // 8

    def size(self, structure: str) -> int:
        """How many bytes a structure takes."""
        return int(_TYPE.unpack_from(self._raw, self._places[self.find_id(STRUCT, structure)])[2])

    def _find_member(self, type_id: int, name: str, seen: Set[int]) -> Optional[_Member]:
        """A member, also of structures without a name within; each is looked into once."""
        inner: List[_Member] = []
        for member in self._members(type_id):
            if member.name == name:
                return member
            if not member.name:
                inner.append(member)
        for member in inner if len(seen) < _MAX_NESTED else ():
            if member.type_id in seen:
                continue
            seen.add(member.type_id)
            found = self._find_member(member.type_id, name, seen)
            if found is not None:
                return found._replace(bits=found.bits + member.bits)
        return None

    def _members(self, type_id: int) -> Iterator[_Member]:
        for _step in range(_MAX_DEPTH):  # behind typedef, const and the like
            if not 0 < type_id < len(self._places):
                return
            at = self._places[type_id]
            _name, info, size_or_type = _TYPE.unpack_from(self._raw, at)
            kind = info >> 24 & 0x1F
            if kind in _QUALIFIERS:
                type_id = size_or_type
                continue
            if kind not in (STRUCT, UNION):
                return
            bitfields = info >> 31
            for number in range(info & 0xFFFF):
                name, member, place = _MEMBER.unpack_from(self._raw, at + 12 + 12 * number)
                yield _Member(self._text(name), member, place & 0xFFFFFF if bitfields else place)
            return

    def _text(self, offset: int) -> str:
        begin = self._strings + offset
        end = self._raw.find(b"\0", begin, self._strings_end)
        return self._raw[begin:end].decode("ascii", "replace") if end >= 0 else ""


def read_kernel_types(path: str = PATH) -> KernelTypes:
    """The running kernel's types.

    Raises
    ------
    Denied, Unsupported
    """
    try:
        with open(path, "rb") as file:
            return KernelTypes(file.read(_MAX_BYTES))
    except PermissionError as error:
        raise Denied("kernel types", found=str(error.strerror)) from error
    except OSError as error:
        raise Unsupported("kernel types", expected=path, found=str(error.strerror)) from error


def _broken(found: str) -> Unsupported:
    return Unsupported("kernel types", expected="BTF", found=found)
