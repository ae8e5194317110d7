# SPDX-License-Identifier: GPL-3.0-or-later
"""From schema 1: the number that all stores had before changes of columns were counted.

Which of these versions made a store can be told by its fingerprint only. The first ones wrote none.
"""

import pyarrow as pa

from whoneeds.store.step import Step

STEP = Step(
    known=frozenset(
        (
            None,
            "c324480fe98ec89a",
            "5413cdcbb014f9f8",  # users that are not known
            "6f18237b063db6ad",  # translations, connections over AF_UNIX, parents, containers' names
            "0d9418a8ad22e940",  # captures, exchanges, names
            "6af0f60624cb777d",
            "e1de7a2531356184",
            "d89a98b39ad145f5",
            "2b386a5f440d1f6f",
            "6defbafddcd3113e",  # flows on a wire
            "b51a784c0499251d",  # processes whose begin is not known
        )
    ),
    added={
        "segment": {"capture_digest": pa.string(), "capture_bytes": pa.int64()},
        "process": {"parent_id": pa.string(), "session": pa.int64(), "container_name": pa.string()},
        "socket": {"initiated": pa.bool_(), "end": pa.string()},
    },
)
