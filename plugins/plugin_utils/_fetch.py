# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a host's segments here in bounded pieces, believing nothing of what the host says. Private, controller only.

The host may lie about names, sizes and digests, send other bytes than it announced, or change its files meanwhile.
What it can reach is its own folder, within the caps, and nothing counts before its bytes were checked.
"""

from __future__ import annotations

import base64
import binascii

from ansible_collections.whoneeds.discovery.plugins.module_utils._segments import (
    DIGEST,
    DIGEST_BYTES,
    SEGMENT_NAME,
    capture_name,
)
from ansible_collections.whoneeds.discovery.plugins.plugin_utils._intake import CAPTURE_SUFFIX

#: Most segments in one call, so that a call stays short when segments are tiny.
_BATCH_PIECES = 500


class FetchError(Exception):
    """The host's answer cannot be used, or the controller has no room; the text says what to do."""


def sort_offers(listed, max_segment_bytes):
    """What the host offers, checked field by field.

    Parameters
    ----------
    listed : object
        The host's list, of any shape.
    max_segment_bytes : int
        A larger segment is refused.

    Returns
    -------
    offered : list of dict
        ``name``, ``size_bytes`` and ``digest`` of usable segments, each digest once, and ``capture_bytes``, the size of
        the capture file beside it, or None.
    refused : list of str
        Why others are not usable, at most 20 reasons.
    """
    offered, refused, seen = [], [], set()
    for entry in listed if isinstance(listed, list) else []:
        entry = entry if isinstance(entry, dict) else {}
        name, size_bytes, digest = entry.get("name"), entry.get("size_bytes"), entry.get("digest")
        if not isinstance(name, str) or not SEGMENT_NAME.match(name):
            refused.append("a segment's name was refused: %s" % ascii(name)[:80])
        elif not isinstance(size_bytes, int) or size_bytes <= DIGEST_BYTES:
            refused.append("%s was refused: too short for a segment (%s bytes)" % (name, ascii(size_bytes)[:20]))
        elif size_bytes > max_segment_bytes:
            refused.append(
                "%s was refused: %d bytes are more than max_segment_bytes=%d" % (name, size_bytes, max_segment_bytes)
            )
        elif not isinstance(digest, str) or not DIGEST.match(digest):
            refused.append("%s was refused: it names no digest" % name)
        elif digest not in seen:
            seen.add(digest)
            capture_bytes = entry.get("capture_bytes")
            if not isinstance(capture_bytes, int) or isinstance(capture_bytes, bool) or capture_bytes <= 0:
                capture_bytes = None
            elif capture_bytes > max_segment_bytes:
                refused.append("%s: its capture file of %s bytes is too large" % (name, ascii(capture_bytes)[:20]))
                capture_bytes = None
            # Plain copies: what a module returned may carry tags of Ansible's own.
            offered.append(
                {
                    "name": str(name),
                    "size_bytes": int(size_bytes),
                    "digest": str(digest),
                    "capture_bytes": None if capture_bytes is None else int(capture_bytes),
                }
            )
    return offered, refused[:20]


class Fetch:
    """One run of fetching from one host.

    Parameters
    ----------
    read_pieces : callable
        Takes a list of ``{name, offset_bytes, length_bytes}`` and returns the host's answer to it, of any shape.
    intake : Intake
        The host's folder on the controller.
    piece_bytes : int
        Most bytes to ask for in one call.

    Attributes
    ----------
    fetched, damaged : list of str
        Names of files that arrived whole, and of those that arrived damaged and were kept as such.
    fetched_bytes : int
    postponed : int
        Segments left for the next run.
    warnings : list of str
    """

    _WHAT, _ENDING = "segments", ""

    def __init__(self, read_pieces, intake, piece_bytes):
        self._read_pieces = read_pieces
        self._intake = intake
        self._piece_bytes = piece_bytes
        self._known_damaged = set()
        self._resumed = set()
        self.fetched = []
        self.damaged = []
        self.fetched_bytes = 0
        self.postponed = 0
        self.warnings = []

    def run(self, missing, known_damaged, max_host_bytes, keep_free_bytes):
        """Fetch segment after segment, oldest first, until done or at a cap.

        Raises
        ------
        FetchError
            What was settled before stays.
        """
        self._known_damaged = set(known_damaged)
        chosen = self._choose(missing, max_host_bytes)
        self._intake.open()
        try:
            self._intake.drop_stale_parts({offer["digest"] for offer in missing}, self._ENDING)
            self._check_room(chosen, keep_free_bytes)
            self._resumed = {offer["digest"] for offer in chosen if self._intake.part_bytes(offer["digest"])}
            self._fetch(chosen)
            # A part that an interrupted run left may itself be torn: such a segment is fetched anew, once.
            again = [offer for offer in chosen if offer["digest"] in self._resumed]
            self._resumed = set()
            self._fetch([offer for offer in again if self._file_name(offer) not in self.fetched])
        finally:
            self._intake.close()

    @staticmethod
    def _file_name(offer):
        """Name that the file has when it is whole."""
        return offer["digest"] + ".seg"

    def _choose(self, missing, max_host_bytes):
        chosen, left_bytes = [], max_host_bytes
        for offer in missing:
            left_bytes -= offer["size_bytes"]
            if left_bytes < 0:
                break
            chosen.append(offer)
        self.postponed = len(missing) - len(chosen)
        if self.postponed:
            self.warnings.append(
                "%d %s wait for the next run, because this one is limited to max_host_bytes=%d"
                % (self.postponed, self._WHAT, max_host_bytes)
            )
        return chosen

    def _check_room(self, chosen, keep_free_bytes):
        needed = sum(offer["size_bytes"] - self._intake.part_bytes(offer["digest"]) for offer in chosen)
        free = self._intake.free_bytes()
        if free - needed < keep_free_bytes:
            raise FetchError(
                "The controller's disk has too little room: expected %d bytes for the segments and keep_free_bytes=%d "
                "beside them in %s, found %d free. Make room; nothing was fetched and nothing is lost."
                % (needed, keep_free_bytes, self._intake.path, free)
            )

    def _fetch(self, chosen):
        for batch in self._batches(chosen):
            asked = [
                {"name": offer["name"], "offset_bytes": at, "length_bytes": length}
                for offer, at, length in batch
                if length
            ]
            contents = iter(_contents(self._read_pieces(asked), asked) if asked else ())
            for offer, at, length in batch:
                content = next(contents) if length else b""
                if len(content) < length or self._intake.part_bytes(offer["digest"]) != at:
                    # Rotated away by the tracer's budget since it was listed: normal on a busy host.
                    self._intake.drop_part(offer["digest"])
                    continue
                if length:
                    self._intake.append(offer["digest"], at, content)
                    self.fetched_bytes += length
                if at + length == offer["size_bytes"]:
                    self._settle(offer)

    def _batches(self, chosen):
        """Pieces that one call can bring: many small segments cost one round trip, not one each."""
        batch, batch_bytes = [], 0
        for offer, at, length in self._pieces(chosen):
            if batch and (batch_bytes + length > self._piece_bytes or len(batch) == _BATCH_PIECES):
                yield batch
                batch, batch_bytes = [], 0
            batch.append((offer, at, length))
            batch_bytes += length
        if batch:
            yield batch

    def _pieces(self, chosen):
        """What to fetch, in order, as (offer, offset, length); what is here to its last byte has length 0."""
        for offer in chosen:
            at = self._intake.part_bytes(offer["digest"])
            if at > offer["size_bytes"]:
                self._intake.drop_part(offer["digest"])
                at = 0
            if at == offer["size_bytes"]:
                yield offer, at, 0
            while at < offer["size_bytes"]:
                length = min(self._piece_bytes, offer["size_bytes"] - at)
                yield offer, at, length
                at += length

    def _settle(self, offer):
        digest = offer["digest"]
        good, file_digest = self._intake.check(digest)
        if good:
            self.fetched.append(self._intake.keep(digest))
        elif digest in self._resumed or file_digest in self._known_damaged:
            self._intake.drop_part(digest)
        else:
            self._known_damaged.add(file_digest)
            self.damaged.append(self._intake.keep_damaged(digest, file_digest))
            self.warnings.append(
                "segment %s does not have the digest that it names; kept as %s for the analysis to put aside"
                % (offer["name"], self.damaged[-1])
            )


class CaptureFetch(Fetch):
    """The same for capture files of segments that are here; each is one more file under the segment's digest.

    Its bytes cannot be checked here: the digest is within the segment, and who analyses it checks it.
    """

    _WHAT, _ENDING = "capture files", CAPTURE_SUFFIX

    @staticmethod
    def offers(offered, whole, captures):
        """Capture files that are missing here.

        Parameters
        ----------
        offered : list of dict
            From `sort_offers`.
        whole, captures : set of str
            Digests of the segments that lie here, and of those whose capture file does.
        """
        return [
            {
                "name": capture_name(offer["name"]),
                "size_bytes": offer["capture_bytes"],
                "digest": offer["digest"] + CAPTURE_SUFFIX,
            }
            for offer in offered
            if offer["capture_bytes"] is not None and offer["digest"] in whole and offer["digest"] not in captures
        ]

    @staticmethod
    def _file_name(offer):
        return offer["digest"]

    def _settle(self, offer):
        self.fetched.append(self._intake.keep_capture(offer["digest"]))


def _contents(pieces, asked):
    """The bytes of each piece that was asked for, no more than was asked; empty where the segment is gone."""
    if not isinstance(pieces, list) or len(pieces) != len(asked):
        raise FetchError("The host answered with other pieces than were asked of it; nothing of them was kept")
    for piece, wanted in zip(pieces, asked):
        encoded = piece.get("content") if isinstance(piece, dict) else None
        if encoded is None:
            yield b""
            continue
        if not isinstance(encoded, str) or len(encoded) > 4 * (wanted["length_bytes"] // 3 + 1):
            raise FetchError("The host sent more than was asked of %s; it was not kept" % wanted["name"])
        try:
            content = base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error) as error:
            raise FetchError("The host sent no base64 for %s; it was not kept" % wanted["name"]) from error
        yield content[: wanted["length_bytes"]]
