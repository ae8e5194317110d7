# SPDX-License-Identifier: GPL-3.0-or-later
"""The host daemon: samples socket tables, hears of connections by events, and writes what it saw as segments.

Standard library only, Python 3.9 and newer, shipped as one zipapp. It opens no port, starts no program, and reads
neither packets nor the arguments or environment of any process.

One sample runs this line::

    namespaces -> sock_diag (or psutil_source) -> owners -> processes -> observation -> segment.spool

Between samples, the kernel's events run this one::

    tracefs -> ring -> tracepoints -> tasks, lives -> (destroyed) -> observation

`sampler` walks the first once and `events` the second, `daemon` repeats them, `supervisor` keeps the daemon alive
where systemd does not, `command` is the door.
"""
