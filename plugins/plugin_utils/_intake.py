# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's folder of segments of one host: names made here, bytes checked here, written so that they last.

Private to this collection, controller only. Nothing that a host says becomes part of a path except a digest of
exactly 64 hexadecimal digits.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat

from ansible_collections.whoneeds.discovery.plugins.module_utils._segments import DIGEST, DIGEST_BYTES

#: What a host may be called: the library's rule (whoneeds.model.identity), which this side must not import.
HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}\Z")
SEGMENT_START = b"whoneeds-segment "
_SUFFIX = ".seg"
CAPTURE_SUFFIX = ".pcap"
_DAMAGED = "damaged-"
_PART = re.compile(r"\.([0-9a-f]{64}(\.pcap)?)\.part\Z")


def host_name_problem(name):
    """Why a name cannot be a host's folder, or None where it can."""
    if isinstance(name, str) and HOST_NAME.match(name) and ".." not in name:
        return None
    return (
        "host name %s cannot be used: expected letters, digits, '.', '_' or '-', beginning with a letter or digit; "
        "rename the host in the inventory" % ascii(name)[:80]
    )


class Occupied(Exception):
    """Another collection of this host is under way; the text says where."""


class Intake:
    """Folder ``<incoming>/<host>``; nothing is created until the first segment arrives.

    Parameters
    ----------
    incoming : str
        The controller's folder of collected segments.
    host : str
        The host's name in the inventory, already found good by `host_name_problem`.
    """

    def __init__(self, incoming, host):
        self.path = os.path.join(incoming, host)
        self._folder_fd = None

    def present(self):
        """Digests of the segments that lie here whole, and file digests of the damaged ones."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return set(), set()
        whole, damaged = set(), set()
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix != _SUFFIX:
                continue
            if DIGEST.match(stem):
                whole.add(stem)
            elif stem.startswith(_DAMAGED):
                damaged.add(stem[len(_DAMAGED):])
        return whole, damaged

    def captures(self):
        """Digests of the segments whose capture files lie here."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return set()
        stems = (name[: -len(CAPTURE_SUFFIX)] for name in names if name.endswith(CAPTURE_SUFFIX))
        return {stem for stem in stems if DIGEST.match(stem)}

    def open(self):
        """Make the folder where it is missing, refuse one that is a link, and let nobody else in until `close`.

        Raises
        ------
        Occupied
            Another collection works here; two of them would write into each other's parts.
        """
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        try:
            os.mkdir(self.path, 0o700)
        except FileExistsError:
            pass
        self._folder_fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(self._folder_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise Occupied(
                "Expected to be alone in %s, found another collection at work there; wait until it has ended" % self.path
            )

    def close(self):
        """Release the folder."""
        if self._folder_fd is not None:
            os.close(self._folder_fd)
            self._folder_fd = None

    def free_bytes(self):
        """Space left on the controller's disk for this user."""
        found = os.fstatvfs(self._folder_fd)
        return found.f_bavail * found.f_frsize

    def part_bytes(self, digest):
        """How much of a segment an interrupted run has left here."""
        try:
            found = os.stat(self._part(digest), dir_fd=self._folder_fd, follow_symlinks=False)
        except FileNotFoundError:
            return 0
        return found.st_size if stat.S_ISREG(found.st_mode) else 0

    def append(self, digest, offset_bytes, content):
        """Put bytes at the end of a segment that is under way."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._part(digest), flags, 0o600, dir_fd=self._folder_fd)
        with os.fdopen(descriptor, "wb") as part:
            part.truncate(offset_bytes)
            part.seek(offset_bytes)
            part.write(content)

    def drop_part(self, digest):
        """Forget what was fetched of a segment."""
        try:
            os.unlink(self._part(digest), dir_fd=self._folder_fd)
        except FileNotFoundError:
            pass

    def drop_stale_parts(self, wanted, ending=""):
        """Forget parts of files that the host no longer has: of segments, or of what has that ending."""
        for name in os.listdir(self._folder_fd):
            match = _PART.match(name)
            if match and (match.group(2) or "") == ending and match.group(1) not in wanted:
                self.drop_part(match.group(1))

    def check(self, digest):
        """Whether the fetched bytes are a segment with this digest, and the SHA-256 of the whole file."""
        descriptor = os.open(self._part(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder_fd)
        with os.fdopen(descriptor, "rb") as part:
            left = os.fstat(part.fileno()).st_size - DIGEST_BYTES
            body, whole, start = hashlib.sha256(), hashlib.sha256(), b""
            while left > 0:
                piece = part.read(min(1 << 20, left))
                if not piece:
                    break
                start = start or piece[: len(SEGMENT_START)]
                body.update(piece)
                whole.update(piece)
                left -= len(piece)
            trailer = part.read()
            whole.update(trailer)
        good = start == SEGMENT_START and trailer == body.digest() and trailer.hex() == digest
        return good, whole.hexdigest()

    def keep(self, digest):
        """Give a good segment its name; when this returns, it survives a power cut."""
        return self._settle(digest, digest + _SUFFIX)

    def keep_damaged(self, digest, file_digest):
        """Keep a damaged segment under a name that says so, for the analysis to put aside with its reason."""
        return self._settle(digest, _DAMAGED + file_digest + _SUFFIX)

    def keep_capture(self, name):
        """Give a capture file its name, as `keep` does for a segment."""
        return self._settle(name, name)

    def _settle(self, digest, name):
        part = self._part(digest)
        descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder_fd)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(part, name, src_dir_fd=self._folder_fd, dst_dir_fd=self._folder_fd)
        os.fsync(self._folder_fd)
        return name

    @staticmethod
    def _part(digest):
        return ".%s.part" % digest
