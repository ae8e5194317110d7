# SPDX-License-Identifier: GPL-3.0-or-later
"""The store: evidence and conclusions on the controller's disk, and the engine that reads them.

Parquet files under a manifest that knows the SHA-256 and the number of rows of each; one writer at a time.
``docs/store.md`` shows the layout. `open_store` is the door.
"""

from whoneeds.store.engine import EngineSettings
from whoneeds.store.problems import Problem
from whoneeds.store.session import Store, open_store

__all__ = ["EngineSettings", "Problem", "Store", "open_store"]
