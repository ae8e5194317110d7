# Copyright (c) whoneeds contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mark text that came from hosts so that no ansible-core ever runs it.

Private to this collection, controller only.

Up to ansible-core 2.18 every string is a template unless it is wrapped; since 2.19 no string is one unless it is
tagged as trusted, but every untrusted string is exported by ansible-inventory in a wrapper, even C(nginx). So a
string of harmless characters is left plain (2.19: trusted), and every other one is wrapped (2.19: left untagged).
Harmless means without braces, quotes, parentheses and pipes: where a play says C(assert: that: "{{ name }}"), a
trusted name is run as an expression even without braces.
"""

from __future__ import annotations

import re

try:
    from ansible.template import trust_as_template

    wrap_var = None
except ImportError:  # ansible-core 2.18 and older
    from ansible.utils.unsafe_proxy import wrap_var

    trust_as_template = None

_HARMLESS = re.compile(r"[A-Za-z0-9_.:/@+=, -]*")


def seal(value):
    """Return a copy of the value (of dicts, lists, strings, numbers, None) in which no string can be run."""
    if isinstance(value, str):
        return _seal_text(value)
    if isinstance(value, dict):
        return {_seal_key(key): seal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [seal(item) for item in value]
    return value


def _seal_text(text):
    harmless = _HARMLESS.fullmatch(text) is not None
    if trust_as_template is not None:
        return trust_as_template(text) if harmless else text
    return text if harmless else wrap_var(text)


def _seal_key(key):
    if not isinstance(key, str) or trust_as_template is not None or _HARMLESS.fullmatch(key) is not None:
        return key
    return wrap_var(key)
