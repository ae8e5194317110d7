# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetch a host's segments over Ansible's own connection; what is believed of it is said in plugin_utils._fetch."""

from __future__ import annotations

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.whoneeds.discovery.plugins.plugin_utils._fetch import (
    CaptureFetch,
    Fetch,
    FetchError,
    sort_offers,
)
from ansible_collections.whoneeds.discovery.plugins.plugin_utils._intake import Intake, Occupied
from ansible_collections.whoneeds.discovery.plugins.plugin_utils._this_host import inventory_name

_INFO = "whoneeds.discovery.segments_info"
_DELETE = "whoneeds.discovery.segments"
_ARGUMENTS = {
    # On the host: expanded there, not here.
    "dir": {"type": "str", "required": True},
    "dest": {"type": "path", "required": True},
    "max_segment_bytes": {"type": "int", "default": 64 << 20},
    "max_host_bytes": {"type": "int", "default": 1 << 30},
    "keep_free_bytes": {"type": "int", "default": 1 << 30},
    "piece_bytes": {"type": "int", "default": 4 << 20},
    "delete": {"type": "bool", "default": False},
}


class ActionModule(ActionBase):
    """The action behind the module collect."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        """Fetch what is missing; the module's documentation describes the result."""
        super().run(tmp, task_vars)
        _validation, wanted = self.validate_argument_spec(argument_spec=_ARGUMENTS)
        for name in ("max_segment_bytes", "max_host_bytes", "piece_bytes"):
            if wanted[name] < 1:
                raise AnsibleActionFail("%s: expected at least 1 byte, found %d" % (name, wanted[name]))
        host = inventory_name(task_vars or {})
        intake = Intake(wanted["dest"], host)

        def call(module, arguments):
            answer = self._execute_module(
                module_name=module, module_args=dict(arguments, dir=wanted["dir"]), task_vars=task_vars
            )
            if answer.get("failed"):
                raise AnsibleActionFail(str(answer.get("msg", "%s failed without a message" % module))[:2000])
            return answer

        def read_pieces(asked):
            return call(_INFO, {"pieces": asked, "max_bytes": wanted["piece_bytes"]}).get("pieces")

        listing = call(_INFO, {})
        offered, warnings = sort_offers(listing.get("segments"), wanted["max_segment_bytes"])
        if not listing.get("exists"):
            warnings.append(
                "no segments: %s has no folder 'segments'; is a tracer installed there, and has it run?" % wanted["dir"]
            )
        whole, damaged = intake.present()
        missing = [offer for offer in offered if offer["digest"] not in whole]
        fetch = Fetch(read_pieces, intake, wanted["piece_bytes"])
        captures = CaptureFetch(read_pieces, intake, wanted["piece_bytes"])
        if self._task.check_mode:
            fetch.fetched = [offer["digest"] + ".seg" for offer in missing]
            foreseen = captures.offers(offered, {offer["digest"] for offer in offered}, intake.captures())
            captures.fetched = [offer["digest"] for offer in foreseen]
        else:
            try:
                if missing:
                    fetch.run(missing, damaged, wanted["max_host_bytes"], wanted["keep_free_bytes"])
                beside = captures.offers(offered, intake.present()[0], intake.captures())
                if beside:
                    left_bytes = wanted["max_host_bytes"] - fetch.fetched_bytes
                    captures.run(beside, (), left_bytes, wanted["keep_free_bytes"])
            except (FetchError, Occupied, OSError) as error:
                raise AnsibleActionFail(str(error)) from error
        deleted = []
        if wanted["delete"]:
            # Only what lies here whole and flushed; in check mode that is everything that would have been fetched.
            safe = {offer["digest"] for offer in offered} if self._task.check_mode else intake.present()[0]
            beside = safe if self._task.check_mode else intake.captures()
            segments = [
                {"name": o["name"], "digest": o["digest"]}
                for o in offered
                if o["digest"] in safe and (o["capture_bytes"] is None or o["digest"] in beside)
            ]
            deleted = call(_DELETE, {"segments": segments}).get("deleted") or []
        before = sorted(digest + ".seg" for digest in whole)
        return {
            "changed": bool(fetch.fetched or fetch.damaged or captures.fetched or deleted),
            "path": intake.path,
            "fetched": fetch.fetched,
            "captures": captures.fetched,
            "damaged": fetch.damaged,
            "present": len(offered) - len(missing),
            "postponed": fetch.postponed + captures.postponed,
            "fetched_bytes": fetch.fetched_bytes + captures.fetched_bytes,
            "deleted": len(deleted),
            "warnings": ["%s: %s" % (host, warning) for warning in warnings + fetch.warnings + captures.warnings],
            "diff": {
                "before_header": intake.path,
                "after_header": intake.path,
                "before": _lines(before),
                "after": _lines(sorted(before + fetch.fetched + captures.fetched + fetch.damaged)),
            },
        }


def _lines(names, limit=1000):
    shown = names[:limit]
    if len(names) > limit:
        shown = shown + ["... and %d more" % (len(names) - limit)]
    return "".join("%s\n" % name for name in shown)
