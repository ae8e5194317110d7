# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers are named as their runtimes name them, out of files that may be anybody's making."""

import json
import os
import threading

import pytest

from whoneeds.tracer.cgroups import parse_cgroup
from whoneeds.tracer.containers import ContainerNames, Places

ID = "0123456789abcdef" * 4
POD = "2b2c1f9e-8b1f-4c7e-9d2a-0f6f3f0c1a55"
#: Control groups of the same kind of container: version 1 and 2, both at once, drivers systemd and cgroupfs.
DOCKER = [
    f"0::/system.slice/docker-{ID}.scope\n",
    f"0::/docker/{ID}\n",
    f"12:memory:/docker/{ID}\n1:name=systemd:/docker/{ID}\n",
    f"1:name=systemd:/system.slice/docker-{ID}.scope\n0::/system.slice/docker-{ID}.scope\n",
]
PODMAN = [f"0::/machine.slice/libpod-{ID}.scope/container\n", f"4:cpu:/libpod_parent/libpod-{ID}\n"]
KUBERNETES = [
    f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD.replace('-', '_')}.slice/"
    f"cri-containerd-{ID}.scope\n",
    f"11:cpu:/kubepods/besteffort/pod{POD}/{ID}\n",
    f"0::/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/crio-{ID}.scope\n",
]


class Shelf:
    """Files of runtimes below a folder."""

    def __init__(self, folder):
        self.folder, self.now_s = folder, 0.0
        self.places = Places(*(str(folder / name) for name in ("docker", "podman", "links", "pods", "mounts")))
        (folder / "mounts").write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
        self.names = ContainerNames(self.places, lambda _uid: str(folder / "home"), lambda: self.now_s)

    def write(self, path, document):
        """Put a document somewhere."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(document if isinstance(document, str) else json.dumps(document))
        return target

    def ask(self, cgroup, uid=0):
        """The name of the container that a control group tells of."""
        return self.names.name(parse_cgroup(cgroup).container, cgroup, uid)


@pytest.fixture
def shelf(tmp_path):
    """An empty one."""
    return Shelf(tmp_path)


@pytest.mark.parametrize("cgroup", DOCKER)
def test_docker(shelf, cgroup):
    """A container of docker's has the name in its configuration, without the slash before it."""
    assert shelf.ask("0::/system.slice/nginx.service\n") is None
    shelf.write(f"docker/{ID}/config.v2.json", {"ID": ID, "Name": "/shop_db.1"})
    assert shelf.ask(cgroup) == "shop_db.1"


@pytest.mark.parametrize("cgroup", PODMAN)
@pytest.mark.parametrize("place", ["podman", "home/.local/share/containers/storage"])
def test_podman(shelf, cgroup, place):
    """A container of podman's is found in root's list, and in that of the user who runs it."""
    containers = [{"id": "f" * 64, "names": ["other"]}, {"id": ID, "names": ["cache", "alias"]}]
    shelf.write(f"{place}/overlay-containers/containers.json", containers)
    assert shelf.ask(cgroup, 1000) == "cache"


def test_a_home_that_may_not_answer_is_left_alone(shelf):
    """What lies on a network file system, or on one of a user's making, is not touched."""
    containers = [{"id": ID, "names": ["cache"]}]
    shelf.write("home/.local/share/containers/storage/overlay-containers/containers.json", containers)
    mounts = shelf.folder / "mounts"
    mounts.write_text(mounts.read_text() + f"23 22 0:9 / {shelf.folder}/home rw shared:1 - nfs4 a:/home rw\n")
    assert shelf.ask(PODMAN[0], 1000) is None


@pytest.mark.parametrize("cgroup", KUBERNETES)
def test_kubernetes(shelf, cgroup):
    """Namespace, pod and container name come from the link to the log, else both from the pod's folder."""
    shelf.write(f"pods/shop_api-7d9c_{POD}/.keep", "")
    assert shelf.ask(cgroup) == "shop/api-7d9c"
    named = Shelf(shelf.folder)
    shelf.write(f"links/api-7d9c_shop_web-{ID}.log", "")
    shelf.write(f"links/api-7d9c_shop_side-{'f' * 64}.log", "")
    assert named.ask(cgroup) == "shop/api-7d9c/web"


def test_names_in_the_control_group_itself(shelf):
    """LXC and systemd-nspawn name their containers in the control group."""
    assert shelf.ask("0::/lxc.payload.mail/system.slice/cron.service\n") == "mail"
    assert shelf.ask("0::/machine.slice/machine-build.scope/payload/init.scope\n") == "build"


@pytest.mark.parametrize(
    "document",
    ["{", "[]", '{"Name": 7}', '{"Name": "/a\\u001b[2J"}', '{"Name": "/../../etc"}', '{"Name": ""}', "[" * 100_000,
     '{"Name": "/' + "a" * 300 + '"}', "x" * (2 << 20)],
)  # fmt: skip
def test_hostile_content_names_nothing(shelf, document):
    """A file that is no such document, too large, or has a name that is none, leaves the identity alone."""
    shelf.write(f"docker/{ID}/config.v2.json", document)
    assert shelf.ask(DOCKER[0]) is None


def test_hostile_files_are_not_opened_for_long(shelf):
    """A pipe that nobody writes into and a link to another file are none."""
    target = shelf.write("elsewhere", {"Name": "/stolen"})
    (shelf.folder / "docker" / ID).mkdir(parents=True)
    path = shelf.folder / "docker" / ID / "config.v2.json"
    os.mkfifo(path)
    asked = threading.Thread(target=lambda: results.append(shelf.ask(DOCKER[0])), daemon=True)
    results = []
    asked.start()
    asked.join(5)
    assert results == [None]
    path.unlink()
    path.symlink_to(target)
    shelf.now_s = 1000.0
    assert shelf.ask(DOCKER[0]) is None


def test_what_was_found_stays_and_what_was_not_is_looked_for_again(shelf):
    """A name is read once; where there was none, the files are looked into again after a minute."""
    assert shelf.ask(DOCKER[0]) is None
    path = shelf.write(f"docker/{ID}/config.v2.json", {"Name": "/late"})
    assert shelf.ask(DOCKER[0]) is None
    shelf.now_s = 61.0
    assert shelf.ask(DOCKER[0]) == "late"
    path.unlink()
    shelf.now_s = 1000.0
    assert shelf.ask(DOCKER[0]) == "late"
