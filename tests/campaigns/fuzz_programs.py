# SPDX-License-Identifier: GPL-3.0-or-later
"""Damage in what the kernel's programs are made from and tell: its description of types, rings, words on processes."""

import mmap
import os
import random
import struct
from pathlib import Path
from typing import Any

from tests.campaigns.mutation import damage_bytes
from tests.campaigns.result import Result
from whoneeds.model.errors import HostError, Unsupported
from whoneeds.model.evidence import ProcessRecord
from whoneeds.model.schema import check_value, columns
from whoneeds.tracer.bpf.btf import PATH, STRUCT, TYPEDEF, KernelTypes
from whoneeds.tracer.bpf.layout import STEP_BYTES, TASK, TASK_BYTES
from whoneeds.tracer.bpf.ring import KernelRing
from whoneeds.tracer.bpf.tasks import ControlGroups, ToldTasks

_HEADER = struct.Struct("=HBBIIIII")
#: So many of a kernel's first types are damaged: all kinds are among them, and a trial takes a millisecond.
_TYPES = 400
_ASKED = (("list_head", "prev"), ("task_struct", "flags"), ("qspinlock", "val"), ("spinlock", "rlock.raw_lock"))
_PAGE = mmap.PAGESIZE


def _first_types() -> bytes:
    """The first types of the running kernel, as a description of its own."""
    raw = Path(PATH).read_bytes()
    magic, version, flags, length, types, _type_bytes, strings, string_bytes = _HEADER.unpack_from(raw)
    at = length + types
    for _number in range(_TYPES):
        _name, info, _size = struct.unpack_from("=III", raw, at)
        kind, members = info >> 24 & 0x1F, info & 0xFFFF
        at += 12 + {1: 4, 3: 12, 14: 4, 17: 4}.get(kind, 0)
        at += members * {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}.get(kind, 0)
    body, text = raw[length + types : at], raw[length + strings :][: min(string_bytes, 16_384)]
    text = text[: text.rindex(b"\0") + 1]
    return _HEADER.pack(magic, version, flags, 24, 0, len(body), len(body), len(text)) + body + text


def fuzz_kernel_types(result: Result, count: int, rng: random.Random) -> None:
    """Damage a kernel's description of its types: refused, or read as what it says."""
    try:
        whole = _first_types()
    except OSError as error:
        result.skip(f"descriptions of kernel types: {error.strerror}")
        return
    for _number in range(count):
        content = damage_bytes(whole, [whole], rng)
        result.add("damaged_kernel_types")
        try:
            types = KernelTypes(content)
        except Unsupported:
            continue
        except Exception as error:
            result.violate(f"kernel types {content.hex()[:600]}: {type(error).__name__}: {error}")
            continue
        for structure, path in _ASKED:
            questions: tuple[Any, ...] = (
                (types.offset, structure, path), (types.size, structure), (types.find_id, TYPEDEF, structure),
                (types.find_id, STRUCT, structure),
            )  # fmt: skip
            for question, *words in questions:
                try:
                    question(*words)
                except Unsupported:
                    continue
                except Exception as error:
                    result.violate(f"{structure}.{path} in {content.hex()[:600]}: {type(error).__name__}: {error}")


def fuzz_rings(result: Result, count: int, rng: random.Random) -> None:
    """Damage a ring and the writer's place in it: reading ends, and gives nothing from beyond."""
    record = struct.pack("=II", 24, 0) + bytes(24)
    lengths = (0, 1, 8, 24, 100, 1000)
    whole = [record * 20, b"".join(struct.pack("=II", n, 0) + bytes((n + 7) // 8 * 8) for n in lengths)]
    file = os.memfd_create("ring")
    os.ftruncate(file, 4 * _PAGE)
    try:
        ring = KernelRing(file, _PAGE)
        for number in range(count):
            content = damage_bytes(whole[number % 2], whole, rng)[:_PAGE]
            begin = 8 * rng.randrange(2 * _PAGE // 8)
            end = (begin + rng.choice((len(content), len(content), rng.randrange(2 * _PAGE), 2**63, -8))) % 2**64
            os.pwrite(file, struct.pack("=Q", begin), 0)
            os.pwrite(file, struct.pack("=Q", end), _PAGE)
            laid = content.ljust(_PAGE, b"\xee")
            laid = laid[_PAGE - begin % _PAGE :] + laid[: _PAGE - begin % _PAGE] if begin % _PAGE else laid
            os.pwrite(file, laid * 2, 2 * _PAGE)
            result.add("damaged_rings")
            most = max(min(end - begin, _PAGE), 0)
            try:
                found = ring.take() if number % 4 < 2 else [ring.take_alike(24, 1000)]
            except Exception as error:
                result.violate(f"ring {content.hex()[:600]}: {type(error).__name__}: {error}")
                continue
            came = struct.unpack("=Q", os.pread(file, 8, 0))[0] - begin
            if sum(map(len, found)) > most or not 0 <= came <= most:
                result.violate(f"ring {content.hex()[:600]}: read {sum(map(len, found))} bytes to {came} of {most}")
        ring.close()
    finally:
        os.close(file)


def fuzz_told_tasks(result: Result, count: int, rng: random.Random) -> None:
    """Damage what is told of processes: refused, or attributes that fit their columns."""
    known = {column.name: column for column in columns(ProcessRecord)}
    path = b"".join(step.ljust(STEP_BYTES, b"\0") for step in (b"python3.11", b"bin", b"usr", b"\xff\x1b[2J"))
    whole = [
        (TASK.pack(4_000_000, 1, 10**13, 10**9, 7, 77, b"gunicorn", 33, 4) + path).ljust(TASK_BYTES, b"\0"),
        (TASK.pack(4_000_001, 0, 10**13, 0, 0, 0, b"\xe9" * 16, 2**32 - 1, 0)).ljust(TASK_BYTES, b"\0"),
    ]
    tasks = ToldTasks("/proc/self/fdinfo", 100, ControlGroups(()))  # a folder in which no process is
    for number in range(count):
        content = damage_bytes(whole[number % 2], whole, rng)
        result.add("damaged_words_on_processes")
        try:
            found = tasks.take(content).now
            if found is None:
                result.violate(f"process {content.hex()[:600]}: not known after it was told of")
                continue
            for name, value in found._asdict().items():
                if name in known:  # the parent is told by its identity, which is made later
                    check_value(known[name], value)
        except HostError:
            continue
        except Exception as error:
            result.violate(f"process {content.hex()[:600]}: {type(error).__name__}: {error}")
        tasks.forget_gone(set())
