# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the whoneeds library on the controller, as a program with one JSON document as its answer.

A program and not an import: Ansible may run under another interpreter than the one that has the library, and what the
analysis needs in memory goes back when it is done. Private, controller only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from ansible.errors import AnsibleActionFail

DONE = 0
DONE_IN_PART = 4
_MAX_ANSWER_BYTES = 64 << 20
_MAX_LOG_BYTES = 64 << 10
_PROBE = "import sys, whoneeds; sys.stdout.write(whoneeds.__version__)"


def choose_python(option):
    """Interpreter for the library: the task's option, else ``WHONEEDS_PYTHON``, else the one that runs Ansible."""
    return os.path.expanduser(option or os.environ.get("WHONEEDS_PYTHON") or sys.executable)


def run_verb(option, arguments, timeout_s):
    """Run ``whoneeds`` with arguments and return its exit code, its document and the end of its log.

    Parameters
    ----------
    option : str or None
        Interpreter that the task names.
    arguments : list of str
        Verb and options; ``--format json`` is added.
    timeout_s : int
        The program is ended when it takes longer.

    Returns
    -------
    exit_code : int
        0 done, 4 done in part.
    document : dict
    log : str
        What it said on standard error, at most 64 KiB of its end.

    Raises
    ------
    AnsibleActionFail
        The library is missing, failed, took too long, or answered with something else than one document.
    """
    python = choose_python(option)
    command = [python, "-m", "whoneeds", *arguments, "--format", "json"]
    # Files and not pipes: a long log cannot block the program, and what is read back is bounded.
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as log:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=answer, stderr=log, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise AnsibleActionFail(
                "whoneeds %s was ended after timeout_s=%d seconds; raise timeout_s. Its log ends: %s"
                % (arguments[0], timeout_s, _end(log, 2000))
            ) from error
        except OSError as error:
            raise AnsibleActionFail(_missing(python, str(error))) from error
        if done.returncode not in (DONE, DONE_IN_PART):
            _require_library(python)
            raise AnsibleActionFail(
                "whoneeds %s failed with exit code %d: %s"
                % (arguments[0], done.returncode, _end(log, 4000).strip() or "it said nothing")
            )
        answer.seek(0)
        text = answer.read(_MAX_ANSWER_BYTES + 1)
        said = _end(log, _MAX_LOG_BYTES)
    if len(text) > _MAX_ANSWER_BYTES:
        raise AnsibleActionFail("whoneeds %s answered with more than %d bytes" % (arguments[0], _MAX_ANSWER_BYTES))
    try:
        document = json.loads(text)
    except ValueError as error:
        raise AnsibleActionFail(
            "whoneeds %s: expected one JSON document, found %s. Are library and collection of the same version?"
            % (arguments[0], ascii(text[:100]))
        ) from error
    if not isinstance(document, dict):
        raise AnsibleActionFail("whoneeds %s: expected a JSON object, found another value" % arguments[0])
    return done.returncode, document, said


def _end(log, limit_bytes):
    log.seek(max(0, log.seek(0, os.SEEK_END) - limit_bytes))
    return log.read(limit_bytes).decode("utf-8", "replace")


def _require_library(python):
    """Say that the library is missing, where that is why a verb failed."""
    try:
        probe = subprocess.run([python, "-c", _PROBE], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AnsibleActionFail(_missing(python, str(error))) from error
    if probe.returncode != 0:
        lines = probe.stderr.decode("utf-8", "replace").strip().splitlines()
        raise AnsibleActionFail(_missing(python, lines[-1] if lines else "exit code %d" % probe.returncode))


def _missing(python, found):
    return (
        "The whoneeds library cannot be used by %s: %s. Install it there (pip install ./python_lib of the project), or "
        "name an interpreter that has it: option 'python', or the environment variable WHONEEDS_PYTHON." % (python, found)
    )
