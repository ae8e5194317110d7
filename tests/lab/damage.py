# SPDX-License-Identifier: GPL-3.0-or-later
"""Put a bad segment beside the good ones of a host: ``damage.py FOLDER cut|flipped|schema|oversized``.

It is made from the host's oldest good segment and sorts before it. It runs on hosts, so it imports nothing of the lab.
"""

import hashlib
import sys
from pathlib import Path

DIGEST_BYTES = 32
OVERSIZED_BYTES = 65 << 20


def spoil(good: bytes, kind: str) -> bytes:
    """A bad segment made from a good one."""
    if kind == "cut":
        return good[: len(good) // 2]
    if kind == "flipped":
        # In the digest: a copy that names a digest which was collected already would not be fetched at all.
        return good[:-DIGEST_BYTES] + bytes([good[-DIGEST_BYTES] ^ 1]) + good[1 - DIGEST_BYTES :]
    if kind == "schema":
        # Whole in itself, as a later version would write it.
        first, _, rest = good[:-DIGEST_BYTES].partition(b"\n")
        body = first[: first.rindex(b" ") + 1] + b"9\n" + rest
        return body + hashlib.sha256(body).digest()
    raise ValueError(f"expected cut, flipped or schema, found {kind!r}")


def main() -> None:
    """Write the bad segment; print its name."""
    folder, kind = Path(sys.argv[1]), sys.argv[2]
    bad = folder / f"00000000000000000001-{kind}.seg"
    good = min(path for path in folder.glob("*.seg") if not path.name.startswith("00000000000000000001-"))
    if kind == "oversized":
        with bad.open("wb") as file:
            file.write(good.read_bytes())
            file.truncate(OVERSIZED_BYTES)
    else:
        bad.write_bytes(spoil(good.read_bytes(), kind))
    print(bad.name)


if __name__ == "__main__":
    main()
