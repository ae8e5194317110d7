# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The installed tracer as the host's modules see it: a program that speaks JSON. Private to this collection."""

from __future__ import annotations

import json
import os
import re
import subprocess

_TIMEOUT_S = 120
#: Everything that a tracer or its role puts into a directory.
_OWN_NAME = re.compile(r"(segments|dropped|status\.json|supervisor\.[a-z]+|tracer\.[a-z]+|whoneeds\.pyz|\..+\.tmp)\Z")


class TracerError(Exception):
    """The tracer said no; the text is what it said."""


def run_tracer(python, zipapp, arguments, accepted=(0,)):
    """Run a verb of the tracer and return what it wrote to standard output.

    Raises
    ------
    TracerError
    """
    # -I: neither the environment nor the user's own packages change what runs.
    command = [python, "-I", zipapp, "trace"] + arguments
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TracerError("trace %s: %s" % (arguments[0], error)) from error
    if done.returncode not in accepted:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()[-2000:]
        raise TracerError(
            "trace %s failed with exit code %d: %s" % (arguments[0], done.returncode, said or "no message")
        )
    return done.stdout


def read_status(python, zipapp, directory):
    """What the tracer of a directory says of itself; empty where none was installed or none ran yet.

    Raises
    ------
    TracerError
    """
    if not os.path.isfile(zipapp) or not os.path.isdir(directory):
        return {}
    # Exit code 1 says that the tracer ended badly; the document says why.
    answer = run_tracer(python, zipapp, ["status", "--dir", directory, "--format", "json"], accepted=(0, 1))
    try:
        status = json.loads(answer)
    except ValueError as error:
        raise TracerError("trace status: expected JSON, found %s" % ascii(answer[:100])) from error
    return status if isinstance(status, dict) else {}


def is_running(status):
    """Whether a tracer works, or a supervisor is about to start it again."""
    return status.get("state") == "running" or status.get("supervised") is True


def foreign_names(*folders):
    """Paths in the folders of a tracer that no tracer makes."""
    found = []
    for folder in sorted(set(folders)):
        try:
            names = sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        found += [os.path.join(folder, name) for name in names if not _OWN_NAME.match(name)]
    return found
