# SPDX-License-Identifier: GPL-3.0-or-later
"""Instructions become the bytes that the kernel's documentation gives for them, and the kernel runs them as meant."""

import os
import sys

import bpf_calls
import pytest

from whoneeds.tracer.bpf.assembler import R0, R1, R2, R3, R6, R7, R10, Assembler

LITTLE = pytest.mark.skipif(sys.byteorder != "little", reason="these bytes are those of a little-endian machine")

#: One instruction of each kind, and its bytes by Documentation/bpf/standardization/instruction-set.rst: operation,
#: source and target register, offset in 16 bits, number in 32.
GOLDEN = {
    "set": (lambda code: code.set(R3, -2), "b7 03 0000 feffffff"),
    "set_wide": (lambda code: code.set_wide(R2, 0xEFFFFFFC_80000001), "18 02 0000 01000080  00 00 0000 fcffffef"),
    "set_map": (lambda code: code.set_map(R1, 7), "18 11 0000 07000000  00 00 0000 00000000"),
    "copy": (lambda code: code.copy(R6, R1), "bf 16 0000 00000000"),
    "add": (lambda code: code.compute(R2, "+", -8), "07 02 0000 f8ffffff"),
    "subtract": (lambda code: code.compute(R2, "-", 1), "17 02 0000 01000000"),
    "multiply": (lambda code: code.compute(R2, "*", 3), "27 02 0000 03000000"),
    "divide": (lambda code: code.compute(R2, "/", 3), "37 02 0000 03000000"),
    "or": (lambda code: code.compute(R2, "|", 16), "47 02 0000 10000000"),
    "and": (lambda code: code.compute(R2, "&", 255), "57 02 0000 ff000000"),
    "shift left": (lambda code: code.compute(R2, "<<", 3), "67 02 0000 03000000"),
    "shift right": (lambda code: code.compute(R2, ">>", 32), "77 02 0000 20000000"),
    "add a register": (lambda code: code.compute_with(R2, "+", R3), "0f 32 0000 00000000"),
    "subtract a register": (lambda code: code.compute_with(R2, "-", R3), "1f 32 0000 00000000"),
    "from network order": (lambda code: code.from_network_order(R1, 16), "dc 01 0000 10000000"),
    "load 1": (lambda code: code.load(R1, R6, 18, 1), "71 61 1200 00000000"),
    "load 2": (lambda code: code.load(R1, R6, 12, 2), "69 61 0c00 00000000"),
    "load 4": (lambda code: code.load(R1, R10, -72, 4), "61 a1 b8ff 00000000"),
    "load 8": (lambda code: code.load(R7, R1, 8, 8), "79 17 0800 00000000"),
    "store 1": (lambda code: code.store(R10, -1, R2, 1), "73 2a ffff 00000000"),
    "store 2": (lambda code: code.store(R10, -2, R2, 2), "6b 2a feff 00000000"),
    "store 4": (lambda code: code.store(R10, -4, R2, 4), "63 2a fcff 00000000"),
    "store 8": (lambda code: code.store(R10, -8, R2, 8), "7b 2a f8ff 00000000"),
    "store a number in 1": (lambda code: code.store_value(R10, -1, 6, 1), "72 0a ffff 06000000"),
    "store a number in 2": (lambda code: code.store_value(R10, -2, -1, 2), "6a 0a feff ffffffff"),
    "store a number in 4": (lambda code: code.store_value(R10, -4, 5, 4), "62 0a fcff 05000000"),
    "store a number in 8": (lambda code: code.store_value(R10, -8, -1, 8), "7a 0a f8ff ffffffff"),
    "add atomically": (lambda code: code.add_atomically(R0, 16, R1), "db 10 1000 00000000"),
    "call": (lambda code: code.call(131), "85 00 0000 83000000"),
    "leave": (lambda code: code.leave(), "95 00 0000 00000000"),
}
TESTS = {"==": "15", ">": "25", ">=": "35", "&": "45", "!=": "55", "<": "a5", "<=": "b5"}


@LITTLE
@pytest.mark.parametrize("kind", GOLDEN)
def test_an_instruction_has_its_bytes(kind):
    """Each kind of instruction is encoded as the kernel's documentation says."""
    code = Assembler()
    write, wanted = GOLDEN[kind]
    write(code)
    assert code.assemble().hex() == wanted.replace(" ", "")


@LITTLE
@pytest.mark.parametrize("test", TESTS)
def test_a_jump_counts_from_the_instruction_behind_it(test):
    """Jumps forward, backward and to the next instruction have their distance, whatever they compare."""
    code = Assembler()
    code.label("begin")
    code.jump_if(R1, test, 9, "end")
    code.jump_if_register(R1, test, R2, "begin")
    code.jump("end")
    code.label("end")
    code.leave()
    wide = f"{int(TESTS[test], 16) + 8:02x}"
    wanted = f"{TESTS[test]} 01 0200 09000000  {wide} 21 feff 00000000  05 00 0000 00000000  95 00 0000 00000000"
    assert code.assemble().hex() == wanted.replace(" ", "")


def test_wide_numbers_count_as_two():
    """A number of 64 bits takes two places, so that a jump over it goes two further."""
    code = Assembler()
    code.jump("end")
    code.set_wide(R1, 1)
    code.set_map(R1, 3)
    code.label("end")
    code.leave()
    assert int.from_bytes(code.assemble()[2:4], sys.byteorder) == 4


def test_a_jump_to_nowhere_is_refused():
    """A label that nobody set is named in the error."""
    code = Assembler()
    code.jump("nowhere")
    with pytest.raises(ValueError, match="no label nowhere"):
        code.assemble()


def test_a_label_has_one_place():
    """A label that is there already is refused, and made labels are never equal."""
    code = Assembler()
    code.label("out")
    with pytest.raises(ValueError, match="label out is there already"):
        code.label("out")
    assert len({code.new_label("out") for _ in range(100)}) == 100


@pytest.mark.parametrize(("between", "fits"), [(32_767, True), (32_768, False)])
def test_a_jump_too_far_is_refused(between, fits):
    """A jump reaches as far as 16 bits count, and one step more is an error and no other jump."""
    code = Assembler()
    code.jump("end")
    for _ in range(between):
        code.set(R0, 0)
    code.label("end")
    code.leave()
    if fits:
        assert int.from_bytes(code.assemble()[2:4], sys.byteorder) == between
    else:
        with pytest.raises(ValueError, match="no such instruction"):
            code.assemble()


@pytest.mark.parametrize("value", [1 << 32, 1 << 31, -(1 << 31) - 1])
def test_a_number_that_does_not_fit_is_refused(value):
    """A number beyond 32 bits with their sign is an error, not a number cut short."""
    code = Assembler()
    code.set(R0, value)
    with pytest.raises(ValueError, match="no such instruction"):
        code.assemble()


def test_assembling_twice_gives_the_same():
    """Making the bytes changes nothing in the program."""
    code = Assembler()
    code.jump("end")
    code.label("end")
    code.leave()
    assert code.assemble() == code.assemble()


A, B = 1_000_003, 77
RUNS = {
    "+": A + B, "-": A - B, "*": A * B, "/": A // B, "|": A | B, "&": A & B, "<<": A << B % 32, ">>": A >> 5,
}  # fmt: skip


@pytest.mark.root
@pytest.mark.parametrize("operation", RUNS)
def test_the_kernel_computes_as_meant(operation):
    """The kernel itself runs each operation, with a number and with a register, to the result of arithmetic."""
    _need_root()
    second = {"<<": B % 32, ">>": 5}.get(operation, B)
    for with_register in (False, True):
        code = Assembler()
        code.set(R0, A)
        code.set(R2, second)
        if with_register:
            code.compute_with(R0, operation, R2)
        else:
            code.compute(R0, operation, second)
        code.leave()
        assert bpf_calls.run(code.assemble()) == RUNS[operation] & 0xFFFFFFFF


PAIRS = [(1, 2), (2, 2), (2, 1), (6, 3), (4, 3)]
MEANT = {
    "==": lambda a, b: a == b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b, "&": lambda a, b: bool(a & b),
    "!=": lambda a, b: a != b, "<": lambda a, b: a < b, "<=": lambda a, b: a <= b,
}  # fmt: skip


@pytest.mark.root
@pytest.mark.parametrize("test", MEANT)
def test_the_kernel_compares_as_meant(test):
    """The kernel itself jumps where the comparison holds, and goes on where it does not; all ones is the greatest."""
    _need_root()
    for left, right in [*PAIRS, (-1, 1), (1, -1)]:
        for with_register in (False, True):
            code = Assembler()
            code.set(R1, left)
            code.set(R2, right)
            code.set(R0, 1)
            if with_register:
                code.jump_if_register(R1, test, R2, "holds")
            else:
                code.jump_if(R1, test, right, "holds")
            code.set(R0, 0)
            code.label("holds")
            code.leave()
            assert bpf_calls.run(code.assemble()) == MEANT[test](left % 2**64, right % 2**64)


@pytest.mark.root
def test_the_kernel_keeps_what_is_stored():
    """The kernel itself stores and loads each width, and turns the order of the network's bytes."""
    _need_root()
    for width in (1, 2, 4, 8):
        code = Assembler()
        code.store_value(R10, -8, 0, 8)
        code.set_wide(R1, 0x1122334455667788)
        code.store(R10, -8, R1, width)
        code.load(R0, R10, -8, width)
        code.leave()
        assert bpf_calls.run(code.assemble()) == 0x1122334455667788 & (1 << 8 * width) - 1 & 0xFFFFFFFF
    code = Assembler()
    code.store_value(R10, -8, 0, 8)
    code.store_value(R10, -8, 0x1F, 1)
    code.store_value(R10, -7, 0x90, 1)
    code.load(R0, R10, -8, 2)
    code.from_network_order(R0, 16)
    code.leave()
    assert bpf_calls.run(code.assemble()) == 0x1F90
    code = Assembler()
    code.store_value(R10, -8, 40, 8)
    code.set(R1, 2)
    code.copy(R2, R10)
    code.add_atomically(R2, -8, R1)
    code.load(R0, R10, -8, 8)
    code.leave()
    assert bpf_calls.run(code.assemble()) == 42


def _need_root():
    if os.geteuid() != 0:
        pytest.skip("running a program in the kernel needs root")
