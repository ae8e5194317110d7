# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that make a host of the lab differ from the bare tree: names, units, configuration, programs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import jinja2

from . import fleet as declared
from .declaration import Fleet

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
TEMPLATES = HERE / "templates"

# Units of the tree that a lab host has no use for, or that would touch the machine beneath it.
MASKED_UNITS = (
    "apt-daily.service", "apt-daily.timer", "apt-daily-upgrade.service", "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "console-getty.service",
    "getty@tty1.service", "getty.target", "systemd-logind.service", "systemd-networkd.service",
    "systemd-networkd.socket", "systemd-networkd-wait-online.service", "systemd-network-generator.service",
    "systemd-pstore.service", "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount",
    "systemd-sysctl.service", "systemd-modules-load.service", "systemd-machine-id-commit.service",
    "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-random-seed.service",
    "systemd-journal-flush.service", "systemd-firstboot.service", "systemd-sysusers.service",
    "systemd-repart.service", "systemd-remount-fs.service", "systemd-pcrphase.service",
    "systemd-pcrphase-sysinit.service", "systemd-tmpfiles-clean.timer", "systemd-tmpfiles-setup-dev.service",
    "systemd-user-sessions.service", "systemd-ask-password-console.path", "systemd-ask-password-wall.path",
    "systemd-initctl.socket", "systemd-rfkill.socket", "dev-hugepages.mount", "dev-mqueue.mount",
    "sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-fs-fuse-connections.mount",
    "kmod-static-nodes.service", "modprobe@.service", "ssh.socket", "remote-fs.target", "procps.service",
)  # fmt: skip

# Distribution packages' units, at work only on the hosts that declare them.
PACKAGED_UNITS = {
    "haproxy.service": "haproxy.service",
    "nginx.service": "nginx.service",
    "redis-server.service": "redis-server.service",
    "postgresql@15-main.service": "postgresql.service",
}

# Programs of the lab and what they import.
PROGRAM_LIBRARIES = ("resp.py", "renewal.py")

# Configuration in files of their own, per application.
CONFIGURATION = {
    "dnsmasq": ("dnsmasq.conf", "/etc/dnsmasq.conf"),
    "haproxy": ("haproxy.cfg", "/etc/haproxy/haproxy.cfg"),
    "nginx": ("nginx.conf", "/etc/nginx/nginx.conf"),
    "redis-server": ("redis.conf", "/etc/redis/redis.conf"),
    "postgres": ("postgresql.conf", "/etc/postgresql/15/main/conf.d/lab.conf"),
}


@dataclass(frozen=True)
class HostFile:
    """One file or link of a host.

    Attributes
    ----------
    path : str
        Absolute path on the host.
    text : str or None
        Its content; None for a link.
    target : str or None
        Where the link points; None for a file.
    mode : int
        Permission bits of a file.
    """

    path: str
    text: str | None = None
    target: str | None = None
    mode: int = 0o644


def environment() -> jinja2.Environment:
    """The template environment; an unknown name in a template is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,
    )


def machine_id(host: str) -> str:
    """A machine id of 32 hex digits that belongs to the host's name."""
    return hashlib.sha256(f"whoneeds lab {host}".encode()).hexdigest()[:32]


def host_files(fleet: Fleet, host_name: str) -> list[HostFile]:
    """Everything a host has beyond the tree, but for its keys.

    Parameters
    ----------
    fleet : Fleet
    host_name : str
        A host of the fleet.

    Returns
    -------
    list of HostFile
        Sorted by path; each path once.
    """
    host = fleet.host(host_name)
    render = environment()
    values = {"fleet": fleet, "host": host, "load": declared}
    applications = fleet.applications_on(host_name)
    units = [application.unit for application in applications]
    files = [
        HostFile("/etc/hostname", f"{host_name}\n"),
        HostFile("/etc/machine-id", f"{machine_id(host_name)}\n"),
    ]
    for template in ("hosts", "resolv.conf", "sshd_config", "journald.conf"):
        target = {"sshd_config": "/etc/ssh/sshd_config", "journald.conf": "/etc/systemd/journald.conf"}
        text = render.get_template(f"{template}.j2").render(values)
        files.append(HostFile(target.get(template, f"/etc/{template}"), text))
    files += [HostFile(f"/etc/systemd/system/{unit}", target="/dev/null") for unit in MASKED_UNITS]
    files.append(_wanted("ssh.service", "/lib/systemd/system"))
    for unit in sorted(set(units) & set(PACKAGED_UNITS)):
        files.append(_wanted(PACKAGED_UNITS[unit], "/lib/systemd/system"))
    for name in PROGRAM_LIBRARIES:
        files.append(HostFile(f"/usr/local/lib/lab/{name}", (PROGRAMS / name).read_text()))
    for application in applications:
        if application.name in CONFIGURATION:
            template, path = CONFIGURATION[application.name]
            files.append(HostFile(path, render.get_template(f"{template}.j2").render(values)))
        if (PROGRAMS / application.name).exists():
            text = (PROGRAMS / application.name).read_text()
            files.append(HostFile(f"/usr/local/bin/{application.name}", text, mode=0o755))
        files += _units_of(render, values, application.name, application.unit)
    if "postgres" in {application.name for application in applications}:
        files.append(
            HostFile("/etc/postgresql/15/main/pg_hba.conf", render.get_template("pg_hba.conf.j2").render(values))
        )
        files.append(HostFile("/usr/local/lib/lab/shop.sql", render.get_template("shop.sql.j2").render(values)))
        files += _units_of(render, values, "shop-schema", "shop-schema.service")
    return sorted({file.path: file for file in files}.values(), key=lambda file: file.path)


def active_units(fleet: Fleet, host_name: str) -> list[str]:
    """Units that must be active on a host before the lab counts as up."""
    units = {application.unit for application in fleet.applications_on(host_name)}
    if "postgresql@15-main.service" in units:
        units.add("shop-schema.service")
    return sorted(units)


def _wanted(unit: str, folder: str) -> HostFile:
    """The link that makes systemd start a unit at boot."""
    return HostFile(f"/etc/systemd/system/multi-user.target.wants/{unit}", target=f"{folder}/{unit}")


def _units_of(render: jinja2.Environment, values: dict[str, object], name: str, unit: str) -> list[HostFile]:
    """The units written for an application, or the drop-in for a packaged one, and the link that starts it."""
    files = []
    folder = "/etc/systemd/system"
    for suffix in ("service", "timer"):
        template = TEMPLATES / f"{name}.{suffix}.j2"
        if template.exists():
            text = render.get_template(template.name).render(values)
            files.append(HostFile(f"{folder}/{name}.{suffix}", text))
            if unit == f"{name}.{suffix}":
                files.append(_wanted(unit, folder))
    dropin = TEMPLATES / f"{name}.dropin.j2"
    if dropin.exists():
        files.append(HostFile(f"{folder}/{unit}.d/lab.conf", render.get_template(dropin.name).render(values)))
    return files
