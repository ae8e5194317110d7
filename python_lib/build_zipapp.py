# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the one file that runs on hosts: the rooms model, segment and tracer, and a door.

The same sources always give the same bytes: entries are sorted, carry one fixed date and mode, and only sources
go in.
"""

import argparse
import hashlib
import os
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).resolve().parent / "src"
ROOMS = ("model", "segment", "tracer")
SHEBANG = b"#!/usr/bin/env python3\n"
MAIN = b"""\
# SPDX-License-Identifier: GPL-3.0-or-later
import sys

if sys.version_info < (3, 9):
    sys.exit("whoneeds: this needs Python 3.9 or newer; found " + sys.version.split()[0] + " at " + sys.executable)

from whoneeds.tracer.command import main

sys.exit(main())
"""
_DATE = (1980, 1, 1, 0, 0, 0)


def collect_files(source: Path) -> dict[str, bytes]:
    """Content of every file that belongs into the archive, by its name there."""
    files = {"__main__.py": MAIN, "whoneeds/__init__.py": (source / "whoneeds/__init__.py").read_bytes()}
    for room in ROOMS:
        for path in (source / "whoneeds" / room).rglob("*.py"):
            files[path.relative_to(source).as_posix()] = path.read_bytes()
    return files


def build(out: Path, source: Path = SOURCE) -> str:
    """Write the archive in one step and return its SHA-256 in hexadecimal."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(SHEBANG)
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in sorted(collect_files(source).items()):
                entry = zipfile.ZipInfo(name, _DATE)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.create_system = 3
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, content, compresslevel=9)
    temporary.chmod(0o755)
    digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    temporary.replace(out)
    return digest


def main(argv: Sequence[str] | None = None) -> int:
    """Build the archive at the path that ``--out`` names."""
    parser = argparse.ArgumentParser(description="Build whoneeds.pyz, the program that runs on hosts.")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to write it")
    arguments = parser.parse_args(argv)
    print(f"{build(arguments.out)}  {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
