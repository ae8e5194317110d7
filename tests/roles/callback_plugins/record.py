# SPDX-License-Identifier: GPL-3.0-or-later
"""Write what every task came to, one JSON object a line, into the file that RECORD_FILE names."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: record
type: aggregate
short_description: what every task came to, for tests
description: For tests.
"""


class CallbackModule(CallbackBase):
    """One line for each task and host."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "record"

    def _write(self, outcome, answer):
        result = answer.result if hasattr(answer, "result") else answer._result
        task = answer.task if hasattr(answer, "task") else answer._task
        host = answer.host if hasattr(answer, "host") else answer._host
        line = {
            "host": host.get_name(),
            "task": task.get_name().rpartition(" : ")[2],
            "action": task.action,
            "outcome": outcome,
            "result": result,
        }
        with Path(os.environ["RECORD_FILE"]).open("a", encoding="utf-8") as record:
            record.write(json.dumps(line, default=str) + "\n")

    def v2_runner_on_ok(self, result):
        self._write("ok", result)

    def v2_runner_on_skipped(self, result):
        self._write("skipped", result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._write("failed", result)

    def v2_runner_on_unreachable(self, result):
        self._write("unreachable", result)
