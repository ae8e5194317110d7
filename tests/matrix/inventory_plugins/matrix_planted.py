# SPDX-License-Identifier: GPL-3.0-or-later
"""A careless inventory plugin: what ours would be without its care. It proves that the tests can see a payload run."""

from __future__ import annotations

DOCUMENTATION = r"""
name: matrix_planted
short_description: Hands out variables from a JSON file as they are
description:
  - For tests.
options:
  plugin:
    description:
      - Name of the plugin.
    type: str
    required: true
  planted:
    description:
      - JSON file with variables by host.
    type: str
    required: true
  trusted:
    description:
      - Whether to declare every string trusted.
    type: bool
    default: false
extends_documentation_fragment:
  - ansible.builtin.constructed
"""

import json  # noqa: E402 - Ansible wants the documentation first
import pathlib  # noqa: E402

from ansible.plugins.inventory import BaseInventoryPlugin, Constructable  # noqa: E402


class InventoryModule(BaseInventoryPlugin, Constructable):
    """Adds hosts and plain variables."""

    NAME = "matrix_planted"

    def verify_file(self, path):
        """Take any planted.yml."""
        return super().verify_file(path) and path.endswith("planted.yml")

    def parse(self, inventory, loader, path, cache=True):
        """Hand everything out."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        if self.get_option("trusted"):
            self.trusted_by_default = True
        for host, values in json.loads(pathlib.Path(self.get_option("planted")).read_text(encoding="utf-8")).items():
            self.inventory.add_host(host)
            for name, value in values.items():
                self.inventory.set_variable(host, name, value)
            known = self.inventory.hosts[host].get_vars()
            self._set_composite_vars(self.get_option("compose"), known, host)
            self._add_host_to_composed_groups(self.get_option("groups"), known, host)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), known, host)
