# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tracer's segment folder as the host's modules see it: listed, read in pieces, deleted. Private to this collection.

Everything goes through directory descriptors that refuse symbolic links, so that whoever can write beside the tracer's
folder cannot lead these modules elsewhere. Only regular files whose names a tracer makes are looked at.
"""

from __future__ import annotations

import os
import re
import stat

DIGEST_BYTES = 32
SEGMENT_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,120}\.seg\Z")
#: A segment's capture file has its name but for the ending.
CAPTURE_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,120}\.pcap\Z")
DIGEST = re.compile(r"[0-9a-f]{64}\Z")

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO that someone planted must not wait for a writer.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_folder(path):
    """Descriptor of the segments folder of a tracer directory, or None where there is none."""
    try:
        parent = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.open("segments", _OPEN_FOLDER, dir_fd=parent)
    except FileNotFoundError:
        return None
    finally:
        os.close(parent)


def capture_name(segment_name):
    """Name of the capture file beside a segment."""
    return segment_name[: -len(".seg")] + ".pcap"


def open_segment(folder_fd, name):
    """Descriptor and size of a segment or capture file, or None where it is gone or is no regular file of such a name."""
    if not SEGMENT_NAME.match(name) and not CAPTURE_NAME.match(name):
        return None
    try:
        descriptor = os.open(name, _OPEN_FILE, dir_fd=folder_fd)
    except OSError:
        # Rotated away since it was listed, or a link or device in its place: neither is a segment.
        return None
    found = os.fstat(descriptor)
    # A second name may be that of a file elsewhere, which the tracer's user could not read but root can.
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(descriptor)
        return None
    return descriptor, found.st_size


def trailer_digest(descriptor, size_bytes):
    """Digest that a segment says it has, in hexadecimal; None where the file is too short to hold one."""
    if size_bytes < DIGEST_BYTES:
        return None
    trailer = os.pread(descriptor, DIGEST_BYTES, size_bytes - DIGEST_BYTES)
    return trailer.hex() if len(trailer) == DIGEST_BYTES else None


def capture_size(folder_fd, segment_name):
    """Size of the capture file beside a segment; None where there is none."""
    opened = open_segment(folder_fd, capture_name(segment_name))
    if opened is None:
        return None
    os.close(opened[0])
    return opened[1]


def list_segments(folder_fd, max_count):
    """The oldest segments of a folder, and how many more there are.

    Names begin with the time at which the segment was opened, so that their order is the order of time.
    """
    names = sorted(name for name in os.listdir(folder_fd) if SEGMENT_NAME.match(name))
    listed = []
    for name in names[:max_count]:
        opened = open_segment(folder_fd, name)
        if opened is None:
            continue
        descriptor, size_bytes = opened
        try:
            listed.append(
                dict(
                    name=name,
                    size_bytes=size_bytes,
                    digest=trailer_digest(descriptor, size_bytes),
                    capture_bytes=capture_size(folder_fd, name),
                )
            )
        finally:
            os.close(descriptor)
    return listed, max(0, len(names) - max_count)


def read_piece(folder_fd, name, offset_bytes, length_bytes):
    """Bytes of a segment or capture file from an offset on, at most as many as asked; None where the segment is gone."""
    opened = open_segment(folder_fd, name)
    if opened is None:
        return None
    descriptor, size_bytes = opened
    try:
        pieces, at, end = [], offset_bytes, min(size_bytes, offset_bytes + length_bytes)
        while at < end:
            piece = os.pread(descriptor, min(1 << 20, end - at), at)
            if not piece:
                break
            pieces.append(piece)
            at += len(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def holds_digest(folder_fd, name, digest):
    """Whether a segment is there and still is the one with this digest."""
    opened = open_segment(folder_fd, name)
    if opened is None:
        return False
    descriptor, size_bytes = opened
    try:
        return trailer_digest(descriptor, size_bytes) == digest
    finally:
        os.close(descriptor)
