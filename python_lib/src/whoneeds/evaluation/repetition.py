# SPDX-License-Identifier: GPL-3.0-or-later
"""Many seeds side by side, kept as they come, and summed up as means with intervals."""

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from whoneeds import __version__
from whoneeds.evaluation.macroscope import Question, evaluate
from whoneeds.evaluation.rows import Row
from whoneeds.evaluation.scores import mean_interval
from whoneeds.model.errors import SettingsError

#: What tells rows of different seeds apart that belong together.
KEYS = (
    "part", "method", "scope", "period_s", "traces", "users_share", "instances_share", "transient_share", "figure",
    "rank", "service", "slice", "low", "high",
)  # fmt: skip
#: Of these the interval is told as well.
SHARES = ("found_share", "false_share", "precision", "recall", "f1", "accuracy", "trivial_accuracy", "usage_share")
_COUNTS = ("found", "false", "missed", "refused", "true", "used", "instances", "count", "stated_sum")


def walk_seeds(
    question: Question,
    seeds: Sequence[int],
    *,
    processes: int | None = None,
    kept: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Evaluate seeds, each in a process of its own.

    Parameters
    ----------
    question : Question
    seeds : sequence of int
    processes : int, optional
        At a time; as many as there are processors, but one for every 4 GiB of memory at most.
    kept : Path, optional
        File to which each seed's rows are added when they are there, and from which they are taken if they are there
        already, so that what was interrupted goes on.
    progress : callable, optional
        Called with seeds done and seeds in all.

    Returns
    -------
    list of dict
        All rows, with ``seed``, in order of seeds.

    Raises
    ------
    SettingsError
        If the file holds answers to another question.
    """
    done = _read(kept, question) if kept is not None else {}
    left = [seed for seed in seeds if seed not in done]
    if progress is not None:
        progress(len(seeds) - len(left), len(seeds))
    if left:
        # fresh processes: threads of engines and a fork do not go together
        context = multiprocessing.get_context("spawn")
        count = min(processes or _processes(), len(left))
        with ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_parent) as pool:
            asked = {pool.submit(evaluate, question, seed): seed for seed in left}
            try:
                for each in as_completed(asked):
                    done[asked[each]] = each.result()
                    if kept is not None:
                        _add(kept, question, asked[each], done[asked[each]])
                    if progress is not None:
                        progress(sum(seed in done for seed in seeds), len(seeds))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    return [{"seed": seed, **row} for seed in seeds for row in done[seed]]


def _end_with_parent() -> None:
    """Let a worker end when who started it is gone: a pool whose parent was killed would work on for nobody."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _processes() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory >> 32))


def _name(question: Question) -> dict[str, Any]:
    return {"version": __version__, **json.loads(json.dumps(asdict(question)))}


def _read(path: Path, question: Question) -> dict[int, list[Row]]:
    if not path.exists():
        return {}
    done = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            document = json.loads(line)
            asked, seed, rows = document["question"], document["seed"], document["rows"]
        except (ValueError, TypeError, KeyError):
            raise SettingsError(
                f"line {number} of {path}", expected="answers to a seed, as this command keeps them",
                found=ascii(line)[:80], remedy="name another file, or remove this one",
            ) from None  # fmt: skip
        if asked != _name(question):
            raise SettingsError(
                f"{path} holds answers to another question", expected=str(_name(question))[:400],
                found=str(asked)[:400], remedy="name another file, or remove this one",
            )  # fmt: skip
        done[seed] = rows
    return done


def _add(path: Path, question: Question, seed: int, rows: list[Row]) -> None:
    line = json.dumps({"question": _name(question), "seed": seed, "rows": rows}, allow_nan=False)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def sum_up(rows: Iterable[Row]) -> list[Row]:
    """Means over seeds, with the interval that holds the true mean with 95 %.

    Parameters
    ----------
    rows : iterable of dict
        From `walk_seeds`.

    Returns
    -------
    list of dict
        One row for what belongs together, with ``seeds``; of a share ``_low`` and ``_high`` stand beside it. Bins of
        probabilities are added up instead, and followed by their calibration error.
    """
    together: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        together.setdefault(tuple(row.get(key) for key in KEYS), []).append(row)
    made = []
    bins: list[Row] = []
    for key, group in together.items():
        named = {name: value for name, value in zip(KEYS, key, strict=True) if value is not None}
        if named["part"] == "calibration":
            added = {name: sum(row[name] for row in group) for name in ("count", "stated_sum", "true")}
            whole = {
                **named, "count": added["count"], "true": added["true"], "stated": added["stated_sum"] / added["count"],
                "true_share": added["true"] / added["count"], "seeds": len({row["seed"] for row in group}),
            }  # fmt: skip
            bins.append(whole)
            continue
        made.append({**named, "seeds": len(group), **dict(_means(group))})
    return [*made, *sorted(bins, key=lambda row: (row["method"], row["scope"], row["low"])), *_calibration_errors(bins)]


def _means(group: list[Row]) -> Iterator[tuple[str, Any]]:
    for name in (*_COUNTS, *SHARES):
        values = [row[name] for row in group if row.get(name) is not None]
        if not values:
            continue
        mean, low, high = mean_interval(values)
        yield name, mean
        if name in SHARES:
            yield f"{name}_low", low
            yield f"{name}_high", high


def _calibration_errors(bins: list[Row]) -> Iterator[Row]:
    for method, scope in dict.fromkeys((row["method"], row["scope"]) for row in bins):
        own = [row for row in bins if (row["method"], row["scope"]) == (method, scope)]
        count = sum(row["count"] for row in own)
        apart = sum(row["count"] * abs(row["stated"] - row["true_share"]) for row in own)
        yield {
            "part": "calibration", "method": method, "scope": scope, "figure": "expected calibration error",
            "count": count, "error": apart / count, "seeds": max(row["seeds"] for row in own),
        }  # fmt: skip
