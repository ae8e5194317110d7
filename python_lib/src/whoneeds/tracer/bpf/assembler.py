# SPDX-License-Identifier: GPL-3.0-or-later
"""Words of the kernel's small machine (BPF), put together without a compiler.

A host that is traced has no compiler, and a compiled object would be bytes that nobody can read in a review. The
programs are short; so they are written as calls, one an instruction, and end up as the bytes that bpf(2) takes.

The machine has ten registers of 64 bits (`R0` to `R9`), a stack that grows down from `R10`, and calls of the kernel's
helpers by number: arguments in `R1` to `R5`, the answer in `R0`; `R6` to `R9` outlive a call.
"""

import struct
from typing import Dict, List, Tuple

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)

_WIDTHS = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_TESTS = {"==": 0x10, ">": 0x20, ">=": 0x30, "&": 0x40, "!=": 0x50, "<": 0xA0, "<=": 0xB0}
_ARITHMETIC = {"+": 0x00, "-": 0x10, "*": 0x20, "/": 0x30, "|": 0x40, "&": 0x50, "<<": 0x60, ">>": 0x70, "=": 0xB0}
_LOAD, _LOAD_WIDE, _STORE_IMM, _STORE, _JUMP, _ARITHMETIC_64 = 0x61, 0x18, 0x62, 0x63, 0x05, 0x07
_CALL, _EXIT, _FROM_REGISTER, _ATOMIC_ADD, _TO_BIG_ENDIAN = 0x85, 0x95, 0x08, 0xDB, 0xDC
_PSEUDO_MAP_FD = 1
_INSTRUCTION = struct.Struct("=BBhi")


class Assembler:
    """Instructions in the order in which they run; jumps name labels.

    Examples
    --------
    >>> program = Assembler()
    >>> program.set(R0, 0)
    >>> program.leave()
    >>> program.assemble().hex()
    'b7000000000000009500000000000000'
    """

    def __init__(self) -> None:
        self._code: List[Tuple[int, int, int, int, int]] = []
        self._labels: Dict[str, int] = {}
        self._jumps: List[Tuple[int, str]] = []
        self._made = 0

    def _add(self, opcode: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> None:
        self._code.append((opcode, target, source, offset, value))

    def new_label(self, stem: str) -> str:
        """A label that no other has."""
        self._made += 1
        return f"{stem}.{self._made}"

    def label(self, name: str) -> None:
        """The next instruction has this name."""
        if name in self._labels:
            raise ValueError(f"label {name} is there already")
        self._labels[name] = len(self._code)

    def set(self, target: int, value: int) -> None:
        """Target becomes a number of 32 bits, with its sign."""
        self._add(_ARITHMETIC_64 | _ARITHMETIC["="], target, value=value)

    def set_wide(self, target: int, value: int) -> None:
        """Target becomes a number of 64 bits."""
        low, high = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
        self._add(_LOAD_WIDE, target, value=_signed(low))
        self._add(0, value=_signed(high))

    def set_map(self, target: int, descriptor: int) -> None:
        """Target becomes a pointer to the map of a descriptor."""
        self._add(_LOAD_WIDE, target, _PSEUDO_MAP_FD, value=descriptor)
        self._add(0)

    def copy(self, target: int, source: int) -> None:
        """Target becomes what source is."""
        self._add(_ARITHMETIC_64 | _ARITHMETIC["="] | _FROM_REGISTER, target, source)

    def compute(self, target: int, operation: str, value: int) -> None:
        """Target becomes target *operation* value."""
        self._add(_ARITHMETIC_64 | _ARITHMETIC[operation], target, value=value)

    def compute_with(self, target: int, operation: str, source: int) -> None:
        """Target becomes target *operation* source."""
        self._add(_ARITHMETIC_64 | _ARITHMETIC[operation] | _FROM_REGISTER, target, source)

    def from_network_order(self, target: int, bits: int) -> None:
        """Bytes of a number as the network has them, as this machine has them."""
        self._add(_TO_BIG_ENDIAN, target, value=bits)

    def load(self, target: int, source: int, offset: int, width: int) -> None:
        """Target becomes the `width` bytes at source + offset."""
        self._add(_LOAD | _WIDTHS[width], target, source, offset)

    def store(self, target: int, offset: int, source: int, width: int) -> None:
        """The `width` bytes at target + offset become what source is."""
        self._add(_STORE | _WIDTHS[width], target, source, offset)

    def store_value(self, target: int, offset: int, value: int, width: int) -> None:
        """The `width` bytes at target + offset become a number."""
        self._add(_STORE_IMM | _WIDTHS[width], target, 0, offset, value)

    def add_atomically(self, target: int, offset: int, source: int) -> None:
        """The 8 bytes at target + offset grow by source, whoever else adds at the same time."""
        self._add(_ATOMIC_ADD, target, source, offset)

    def jump(self, label: str) -> None:
        """Go on at a label."""
        self._jumps.append((len(self._code), label))
        self._add(_JUMP)

    def jump_if(self, left: int, test: str, value: int, label: str) -> None:
        """Go on at a label if left *test* value; numbers count without sign."""
        self._jumps.append((len(self._code), label))
        self._add(_JUMP | _TESTS[test], left, value=value)

    def jump_if_register(self, left: int, test: str, right: int, label: str) -> None:
        """Go on at a label if left *test* right; numbers count without sign."""
        self._jumps.append((len(self._code), label))
        self._add(_JUMP | _TESTS[test] | _FROM_REGISTER, left, right)

    def call(self, helper: int) -> None:
        """Call a helper of the kernel."""
        self._add(_CALL, value=helper)

    def leave(self) -> None:
        """End the program with what R0 is."""
        self._add(_EXIT)

    def assemble(self) -> bytes:
        """The program as bpf(2) takes it.

        Raises
        ------
        ValueError
            If a jump has no label, or one too far away.
        """
        code = list(self._code)
        for at, label in self._jumps:
            if label not in self._labels:
                raise ValueError(f"no label {label}")
            opcode, target, source, _offset, value = code[at]
            code[at] = (opcode, target, source, self._labels[label] - at - 1, value)
        try:
            return b"".join(
                _INSTRUCTION.pack(opcode, target | source << 4 if _LITTLE else target << 4 | source, offset, value)
                for opcode, target, source, offset, value in code
            )
        except struct.error as error:
            raise ValueError(f"no such instruction: {error}") from error


_LITTLE = struct.pack("=H", 1) == b"\x01\x00"


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value
