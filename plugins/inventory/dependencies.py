# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts document as an inventory source."""

from __future__ import annotations

DOCUMENTATION = r"""
name: dependencies
short_description: Discovered dependencies as groups and a host variable
version_added: 0.1.0
author:
  - whoneeds maintainers (@whoneeds)
description:
  - Reads the facts document that the discovery publishes and gives the hosts that the inventory already knows
    the groups C(whoneeds_needs_<host>), C(whoneeds_provides_<protocol>_<port>) and C(whoneeds_runs_<app>),
    and the variable C(whoneeds).
  - Adds no hosts. Hosts of the document that no earlier inventory source knows are passed over and counted in a
    message at verbosity 1, so this source belongs after the sources that name the hosts. In an inventory
    folder, sources are read in alphabetical order.
  - A document that is not there yet is a warning, so that the first discovery can run with this source in
    place. A damaged document, or one of another schema, is an error.
  - Needs the Python standard library only.
notes:
  - Names of processes are chosen by whoever starts them. Every string is sealed as it is loaded and is never
    run as a template, on any supported ansible-core. Since ansible-core 2.19, C(ansible-inventory --list)
    shows strings with other characters than letters, digits and C(_.:/@+=,) space and C(-) inside
    C(__ansible_unsafe); keep that wrapper when you process its output.
  - C(ansible-inventory --yaml) drops that protection, so do not load its output as inventory again.
  - Group names follow from names on the hosts. A name that had to be changed to be group-safe is followed by
    eight digits of its hash, so that C(db-1) and C(db_1) stay apart.
  - If you build group names from the variable C(whoneeds) with O(keyed_groups), give them a prefix. A process
    may be called like one of your hosts.
  - The document is a local file and is read anew each time; there is no cache to configure.
options:
  plugin:
    description:
      - Must be V(whoneeds.discovery.dependencies).
    type: str
    required: true
    choices:
      - whoneeds.discovery.dependencies
  store:
    description:
      - Path of the facts document. A relative path begins at the folder of this configuration file, and C(~) is the
        home folder of the user who runs Ansible.
      - The document must not lie in the folder of this configuration file or below it, unless in a folder whose name
        begins with a dot. Ansible takes any other file of an inventory folder for a source of its own.
    type: str
    required: true
    env:
      - name: WHONEEDS_STORE
extends_documentation_fragment:
  - ansible.builtin.constructed
"""

EXAMPLES = r"""
# inventory/whoneeds.dependencies.yml, read after inventory/hosts.yml
plugin: whoneeds.discovery.dependencies
store: ~/.local/share/whoneeds/production/facts.json
---
# Groups and variables of your own, from what was discovered
plugin: whoneeds.discovery.dependencies
store: ../.whoneeds/facts.json
strict: true
compose:
  databases_needed: whoneeds.needs | selectattr('port', 'equalto', 5432) | map(attribute='host') | list
groups:
  seen_poorly: whoneeds.coverage.privileged is false
keyed_groups:
  - key: whoneeds.runs
    prefix: app
"""

import os

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable
from ansible_collections.whoneeds.discovery.plugins.plugin_utils._facts_document import DamagedDocument, read_document
from ansible_collections.whoneeds.discovery.plugins.plugin_utils._seal import seal

VARIABLE = "whoneeds"
NAMES = ("dependencies.yml", "dependencies.yaml")
#: Folders of an inventory folder in which Ansible looks for no sources, beside those whose names begin with a dot.
PASSED_OVER = ("host_vars", "group_vars", "vars_plugins")


class InventoryModule(BaseInventoryPlugin, Constructable):
    """Gives known hosts their discovered groups and facts. `trusted_by_default` stays unset on purpose."""

    NAME = "whoneeds.discovery.dependencies"

    def verify_file(self, path):
        """Whether the path is a configuration file of this plugin, by its name."""
        name = os.path.basename(path)
        ours = name in NAMES or name.endswith(tuple("." + ending for ending in NAMES))
        return super().verify_file(path) and ours

    def parse(self, inventory, loader, path, cache=True):
        """Read the document and hand out groups and variables; nothing is handed out if any of it is damaged."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        store = self._store_path(path)
        try:
            facts_of = read_document(store)
        except DamagedDocument as error:
            raise AnsibleParserError("facts document %s" % error) from error
        if facts_of is None:
            self.display.warning(
                "There is no facts document at %s yet: run whoneeds.discovery.discover, or correct the option store of %s."
                % (store, path)
            )
            return
        known = sorted(set(facts_of) & set(self.inventory.hosts))
        self._refuse_host_names(known, facts_of)
        for host in known:
            self._hand_out(host, facts_of[host])
        self._tell_unknown(path, len(facts_of), len(known))

    def _store_path(self, path):
        folder = os.path.dirname(os.path.abspath(path))
        store = os.path.normpath(os.path.join(folder, os.path.expanduser(str(self.get_option("store")))))
        steps = os.path.relpath(store, folder).split(os.sep)
        if steps[0] != os.pardir and not any(step.startswith(".") or step in PASSED_OVER for step in steps):
            raise AnsibleParserError(
                "facts document %s: expected a place outside %s, found one within it; where that folder is the inventory, "
                "Ansible takes the document for a source of hosts of its own. Move it, for example to %s"
                % (store, folder, os.path.join(folder, ".whoneeds", os.path.basename(store)))
            )
        return store

    def _refuse_host_names(self, known, facts_of):
        """A group called like a host makes patterns ambiguous; Ansible itself only warns."""
        clashes = sorted({group for host in known for group in facts_of[host]["groups"]} & set(self.inventory.hosts))
        if clashes:
            raise AnsibleParserError(
                "discovered group %s: expected a name that no host has, found a host of that name; rename the host"
                % clashes[0]
            )

    def _hand_out(self, host, facts):
        groups = facts.pop("groups")
        for group in groups:
            self.inventory.add_group(group)
            self.inventory.add_child(group, host)
        self._set_sealed(host, VARIABLE, facts)
        strict = self.get_option("strict")
        variables = self.inventory.hosts[host].get_vars()
        self._set_composite_vars(self.get_option("compose"), variables, host, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, host, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, host, strict=strict)

    def _set_composite_vars(self, compose, variables, host, strict=False):
        """Composed variables are made of text from hosts as well, so they take the same way in."""
        for name, template in (compose or {}).items():
            try:
                value = self._compose(template, variables)
            except Exception as error:
                if strict:
                    raise AnsibleParserError("could not compose %s for host %s: %s" % (name, host, error)) from error
                continue
            self._set_sealed(host, name, value)

    def _set_sealed(self, host, name, value):
        # Straight to the host: since ansible-core 2.19 the inventory's own set_variable decides about trust, and where
        # several sources are loaded it decides by the first of them (a TOML file would make all of ours trusted).
        self.inventory.hosts[host].set_variable(name, seal(value))

    def _tell_unknown(self, path, total, known):
        if total and not known:
            self.display.warning(
                "%s: none of the %d hosts of the facts document is known to an earlier inventory source; "
                "put this source after those that name the hosts." % (path, total)
            )
        elif total > known:
            self.display.v("%s: %d hosts of the facts document are not in the inventory, passed over" % (path, total - known))
