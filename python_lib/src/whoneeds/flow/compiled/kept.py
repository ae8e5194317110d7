# SPDX-License-Identifier: GPL-3.0-or-later
"""Where compiled code is kept, so that only the first start compiles and later ones do without numba.

It lies in the user's own cache (``$XDG_CACHE_HOME/whoneeds/compiled``, else ``~/.cache/whoneeds/compiled``), in a file
whose name is made of all that it depends on: this room's sources and the vocabulary's, numba, LLVM, and the processor.
Kept code is run, so a folder or a file that belongs to somebody else, or that others may write to, is not used, nor one
whose content is not what was written; then it is compiled anew.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from whoneeds.model import evidence

#: Files of other sources or versions that are left where they are.
_MOST_KEPT = 4
_SUFFIX, _DIGEST_BYTES, _MOST_BYTES = ".code", 32, 64 << 20


def address_of(symbol: str) -> int:
    """Where an entry lies in memory; compiles if nothing is kept."""
    address: int = _loaded().get_function_address(symbol)
    return address


@cache
def _loaded() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    name, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=name, features=features, opt=3, codemodel="jitdefault", jit=True)
    path = place_of(f"{llvmlite.__version__} {target.triple} {name} {features}")
    code = None if path is None else read_code(path)
    if code is None:
        code = _build(machine)
        if path is not None:
            write_code(path, code)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine


def _build(machine: Any) -> bytes:
    from whoneeds.flow.compiled.build import build_object
    from whoneeds.flow.compiled.loop import run, sweep
    from whoneeds.flow.compiled.scan import scan_pcap, scan_pcapng
    from whoneeds.flow.compiled.texts import name_flows, write_lines

    return build_object((scan_pcap, scan_pcapng, run, sweep, name_flows, write_lines), machine)


def place_of(platform: str) -> Path | None:
    """The file for this code on this machine; None if there is no folder that only this user can write to."""
    try:
        parent = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whoneeds"
        folder = parent / "compiled"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (_is_ours(parent.lstat()) and _is_ours(folder.lstat())):
            return None
        sources = [*sorted(Path(__file__).parent.glob("*.py")), Path(evidence.__file__)]
        digest = hashlib.sha256(f"{platform} {version('numba')} {sys.version}".encode())
        for source in sources:
            digest.update(source.read_bytes())
    except (OSError, RuntimeError):
        return None
    return folder / (digest.hexdigest()[:32] + _SUFFIX)


def _is_ours(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022


def read_code(path: Path) -> bytes | None:
    """The code in a file, if it is ours and whole."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(file, "rb") as opened:
            found = os.fstat(file)
            if not _is_ours(found) or found.st_size > _MOST_BYTES:
                return None
            content = opened.read()
            os.utime(file)  # so that it counts as used
    except OSError:
        return None
    code = content[_DIGEST_BYTES:]
    return code if hashlib.sha256(code).digest() == content[:_DIGEST_BYTES] else None


def write_code(path: Path, code: bytes) -> None:
    """Keep code, and of what was kept before only what was used last."""
    made = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        made.unlink(missing_ok=True)
        file = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as opened:
            opened.write(hashlib.sha256(code).digest() + code)
        made.replace(path)
        for old in list(_by_use(path.parent))[_MOST_KEPT:]:
            old.unlink(missing_ok=True)


def _by_use(folder: Path) -> Iterator[Path]:
    files = [(one.stat().st_mtime_ns, one) for one in folder.glob("*" + _SUFFIX)]
    return (one for _changed_ns, one in sorted(files, reverse=True))
