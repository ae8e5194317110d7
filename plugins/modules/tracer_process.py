#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tracer_process
short_description: Start and stop a tracer that its own supervisor watches over
version_added: 0.1.0
description:
  - Runs the installed tracer in the background without systemd, for ever or for a bounded time, and stops it again.
  - The tracer's supervisor starts it again when it dies, and ends by itself when the time is over.
author:
  - whoneeds contributors (@whoneeds)
extends_documentation_fragment:
  - whoneeds.discovery.tracer_directory
  - whoneeds.discovery.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  python:
    description: Interpreter on the host, 3.9 or newer.
    type: path
    required: true
  zipapp:
    description: The installed tracer.
    type: path
    required: true
  config:
    description: Configuration file of the tracer; needed unless O(state=stopped).
    type: path
  for_s:
    description: End after this time, in seconds; without it, trace until stopped.
    type: float
  state:
    description:
      - V(started) leaves a running tracer alone.
      - V(restarted) starts it anew, with the configuration as it is now.
      - V(stopped) ends it after it has completed its last segment.
    type: str
    choices: [started, restarted, stopped]
    default: started
seealso:
  - module: whoneeds.discovery.tracer_info
"""

EXAMPLES = r"""
- name: Trace for a minute
  whoneeds.discovery.tracer_process:
    python: /usr/bin/python3
    zipapp: /var/lib/whoneeds-campaign/whoneeds.pyz
    config: /var/lib/whoneeds-campaign/tracer.json
    dir: /var/lib/whoneeds-campaign
    for_s: 60
  become: true
"""

RETURN = r"""
status:
  description: What the tracer says of itself afterwards; before, in check mode.
  returned: always
  type: dict
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whoneeds.discovery.plugins.module_utils._tracer import (
    TracerError,
    is_running,
    read_status,
    run_tracer,
)

_STEP_S = 0.2
_PATIENCE_S = 30


def await_running(look, wanted):
    """Status once it is as wanted, or as it is when patience ends."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        status = look()
        if is_running(status) == wanted or time.monotonic() > until:
            return status
        time.sleep(_STEP_S)


def apply_state(params, check_mode):
    """Bring the tracer to the state that is asked for; whether it ran before, whether it runs now, and its status."""
    python, zipapp, state = params["python"], params["zipapp"], params["state"]

    def look():
        return read_status(python, zipapp, params["dir"])

    status = look()
    before = is_running(status)
    stops = before and state in ("restarted", "stopped")
    starts = state == "restarted" or (state == "started" and not before)
    after = starts or (before and not stops)
    if check_mode or not (stops or starts):
        return before, after, stops or starts, status
    if stops:
        run_tracer(python, zipapp, ["stop", "--dir", params["dir"]])
        status = await_running(look, False)
        if is_running(status):
            raise TracerError("the tracer was told to stop and still runs after %d s" % _PATIENCE_S)
    if starts:
        bound = [] if params["for_s"] is None else ["--for", repr(params["for_s"])]
        run_tracer(python, zipapp, ["start", "--dir", params["dir"], "--config", params["config"]] + bound)
        status = await_running(look, True)
        if not is_running(status):
            raise TracerError("the tracer did not come up: %s" % (status.get("last_error") or "it does not say why"))
    return before, after, True, status


def main():
    module = AnsibleModule(
        argument_spec=dict(
            dir=dict(type="path", required=True),
            python=dict(type="path", required=True),
            zipapp=dict(type="path", required=True),
            config=dict(type="path"),
            for_s=dict(type="float"),
            state=dict(type="str", choices=["started", "restarted", "stopped"], default="started"),
        ),
        required_if=[("state", "started", ["config"]), ("state", "restarted", ["config"])],
        supports_check_mode=True,
    )
    if module.params["for_s"] is not None and module.params["for_s"] <= 0:
        module.fail_json(msg="for_s: expected more than 0 seconds, found %r" % module.params["for_s"])
    needed = [] if module.params["state"] == "stopped" else [module.params["zipapp"], module.params["config"]]
    for path in needed:
        if not module.check_mode and not os.path.isfile(path):
            module.fail_json(msg="Expected the file %s, found none; install the tracer first" % path)
    try:
        before, after, changed, status = apply_state(module.params, module.check_mode)
    except TracerError as error:
        module.fail_json(msg="%s. Look at 'trace status --dir %s' on the host." % (error, module.params["dir"]))
    words = {True: "running\n", False: "stopped\n"}
    module.exit_json(
        changed=changed,
        status=status,
        diff=dict(
            before=words[before],
            after=words[after],
            before_header=module.params["dir"],
            after_header=module.params["dir"],
        ),
    )


if __name__ == "__main__":
    main()
