# SPDX-License-Identifier: GPL-3.0-or-later
"""The host daemon: samples socket tables and their owners, and writes what it saw as segments.

Standard library only, Python 3.9 and newer, shipped as one zipapp. It opens no port, starts no program, and reads
neither packets nor the arguments or environment of any process.

One sample runs this line::

    namespaces -> sock_diag (or psutil_source) -> owners -> processes -> observation -> segment.spool

`sampler` walks it once, `daemon` repeats it, `supervisor` keeps the daemon alive where systemd does not,
`command` is the door.
"""
