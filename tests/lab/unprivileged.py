# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at the tracer's service from its own host, and disturb it; prints JSON.

It runs on hosts, as root, so it imports nothing of the lab. What is in the kernel is asked of the kernel, by the
numbers of the programs that systemd keeps: all hosts share one kernel, and other tracers may be at work.
"""

import ctypes
import json
import os
import platform
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

UNIT = "whoneeds-tracer.service"
STATUS = ["/usr/bin/python3", "-I", "/usr/local/lib/whoneeds/whoneeds.pyz", "trace", "status", "--format", "json"]
BPF_CALL = {"x86_64": 321, "aarch64": 280}
PROGRAM_BY_NUMBER = 13
PATIENCE_S = 20


def show(name):
    """A property of the unit."""
    return subprocess.run(
        ["systemctl", "show", "--value", "--property", name, UNIT], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def kept_programs():
    """The kernel's numbers of the programs that systemd keeps running; its own hang on cgroups."""
    found = set()
    for path in Path("/proc/1/fdinfo").iterdir():
        try:
            text = path.read_text()
        except OSError:
            continue
        if re.search(r"^link_type:\s*(raw_tracepoint|tracing|iter)$", text, re.MULTILINE):
            found.update(int(number) for number in re.findall(r"^prog_id:\s*(\d+)$", text, re.MULTILINE))
    return sorted(found)


def in_kernel(numbers):
    """Those of the programs that the kernel still has."""
    library = ctypes.CDLL(None, use_errno=True)
    left = []
    for number in numbers:
        asked = ctypes.create_string_buffer(struct.pack("=III", number, 0, 0))
        descriptor = library.syscall(BPF_CALL[platform.machine()], PROGRAM_BY_NUMBER, asked, 12)
        if descriptor >= 0:
            os.close(descriptor)
            left.append(number)
    return left


def look():
    """How the service is: its process, what that may do, and what it traces by."""
    pid = int(show("MainPID"))
    process = Path(f"/proc/{pid}")
    words = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    status = json.loads(subprocess.run(STATUS, check=True, stdout=subprocess.PIPE).stdout)
    return {
        "pid": pid,
        "user": process.owner(),
        "capabilities": sorted({words[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}),
        "kept": int(show("NFileDescriptorStore")),
        "sources": status.get("sources"),
        "privileged": status.get("privileged"),
        "samples": status.get("samples"),
        "told": status.get("events") or {},
        "same": status.get("pid") == pid,
    }


def await_tracing(not_pid=0):
    """How it is once it traces, by another process if that is asked; as it is when patience ends."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            found = look()
            if found["pid"] != not_pid and found["same"] and (found["samples"] or 0) >= 1:
                return found
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            found = {"pid": 0, "error": str(error)}
        if time.monotonic() > until:
            return found
        time.sleep(0.2)


def main():
    """Look, kill, reload, restart, stop, start."""
    analysed = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", UNIT], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    seen = {
        "exposure": float(re.search(r"exposure level for \S+: ([0-9.]+)", analysed)[1]),
        "at_first": await_tracing(),
    }
    os.kill(seen["at_first"]["pid"], signal.SIGKILL)
    seen["killed"] = await_tracing(seen["at_first"]["pid"])
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    seen["reloaded"] = await_tracing()
    subprocess.run(["systemctl", "restart", UNIT], check=True)
    seen["restarted"] = await_tracing(seen["reloaded"]["pid"])
    programs = kept_programs()
    seen["programs"], seen["programs_before_stop"] = len(programs), len(in_kernel(programs))
    subprocess.run(["systemctl", "stop", UNIT], check=True)
    until = time.monotonic() + PATIENCE_S
    while in_kernel(programs) and time.monotonic() < until:
        time.sleep(0.2)
    seen["programs_after_stop"], seen["kept_after_stop"] = len(in_kernel(programs)), int(show("NFileDescriptorStore"))
    subprocess.run(["systemctl", "start", UNIT], check=True)
    seen["started"] = await_tracing()
    print(json.dumps(seen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
