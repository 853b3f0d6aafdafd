"""Which differences are real: runs paired mask by mask.

A difference is that of two runs that saw the same visible labels of the same images, and it is called real where the
95 % t interval of its mean over the pairs excludes 0. Where all pairs are on one mask, that is said: then it is real of
these labels, and nothing is said of others.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ssl_gen.core.wording import count
from ssl_gen.metrics import statistics
from ssl_gen.metrics.registry import number_of
from ssl_gen.reports import tables
from ssl_gen.reports.compare.entries import Entry
from ssl_gen.types import UserError

ALL_PAIRS = 8  # of more runs, each is paired only with the first that shares its masks; ours


def paired(a: Entry, b: Entry, metric: str) -> statistics.Paired | None:
    """The difference a - b of a metric over the seeds and masks that both have; None without one.

    A mask is shared where its hash, over images and visible labels, and its seed are the same in both.
    """
    if metric not in a.final.metrics or metric not in b.final.metrics:
        return None
    of_a, of_b = (
        dict(zip(zip(each.seeds, each.masks, strict=True), each.metrics[metric]["per_seed"], strict=True))
        for each in (a.final, b.final)
    )
    both = [key for key in of_a if key in of_b]
    result = statistics.paired([of_a[key] for key in both], [of_b[key] for key in both])
    return result if result["n"] else None


def masks_of(a: Entry, b: Entry, metric: str) -> int:
    """How many different masks the pairs of `paired` are on: 1 where all seeds trained on one, or saw all labels."""
    having = [
        {
            (seed, mask)
            for seed, mask, value in zip(
                each.final.seeds, each.final.masks, each.final.metrics[metric]["per_seed"], strict=True
            )
            if value is not None
        }
        for each in (a, b)
    ]
    return len({mask for _, mask in having[0] & having[1]})


def share_masks(a: Entry, b: Entry) -> bool:
    """Did both see the same visible labels with any seed?"""
    keys = [set(zip(each.final.seeds, each.final.masks, strict=True)) for each in (a, b)]
    return bool(keys[0] & keys[1])


def pairs(entries: Sequence[Entry], baseline: str | None = None) -> list[tuple[Entry, Entry]]:
    """Which runs are compared: all that share masks, or, of many runs or with a baseline, each with one.

    baseline: a run's name, or the method of METHOD@LABELS; each run is then paired with the one on its own masks.
    """
    if baseline is None and len(entries) <= ALL_PAIRS:
        return [(b, a) for a, b in itertools.combinations(entries, 2) if share_masks(a, b)]
    others = [entry for entry in entries if baseline is None or baseline in (entry.name, entry.method)]
    if not others:
        raise UserError(f"no run is called {baseline}: there are {', '.join(entry.name for entry in entries)}")
    found = []
    for entry in entries:
        other = next((other for other in others if share_masks(entry, other)), entry)
        found += [] if other is entry or (baseline is not None and entry in others) else [(entry, other)]
    return found


def verdict(result: statistics.Paired, metric: str) -> str:
    """Is a difference real, and is it for the better? In words."""
    if result["ci95"] is None:
        return "one pair: cannot be told"
    low, high = result["ci95"]
    if statistics.alike(result) and result["difference"]:
        return "all pairs differ alike: cannot be told"
    if low <= 0 <= high:
        return "not shown: the interval holds 0"
    side, better = "higher" if low > 0 else "lower", number_of(metric).better
    judged = "" if better == "neither" else ", better" if side == better else ", worse"
    return f"real: {side}{judged}"


def together(results: Sequence[statistics.Paired]) -> str:
    """How many comparisons a table makes, and how many of those that look real hold together; "" for none."""
    told = [result for result in results if result["ci95"] is not None]
    if not told:
        return ""
    if len(told) == 1:
        return "1 comparison, at 95 %."
    alone = sum(statistics.excludes_zero(each) for each in told)
    held = sum(statistics.excludes_zero(each, len(told)) for each in told)
    said = (
        f"{count(len(told), 'comparison')}, each at 95 %: where nothing differs, about one in twenty still looks real. "
    )
    said += f"{alone} of the intervals {'excludes' if alone == 1 else 'exclude'} 0, {held} if all are to hold together "
    return said + f"(Bonferroni: {100 * (1 - 0.05 / len(told)):.4g} % each)."


def difference(run: Entry, baseline: Entry) -> str:
    """The paired difference in error, "-1.20 [-2.31, -0.09]" in points; raises ValueError for other masks.

    A run with another number of labels (a ceiling) has no pair: its cell is empty.
    """
    result = error_difference(run, baseline)
    if result is None or result["difference"] is None:
        return tables.MISSING
    interval = "" if result["ci95"] is None else " [{:+.2f}, {:+.2f}]".format(*result["ci95"])
    return f"{result['difference']:+.2f}{interval}"


def error_difference(run: Entry, baseline: Entry) -> statistics.Paired | None:
    """The paired difference in error over the masks of both, None without one.

    Raises ValueError where they saw as many labels, and none of one's masks is the other's.
    """
    if run.final.labels != baseline.final.labels:
        return None
    if not share_masks(run, baseline):
        raise ValueError(
            f"{run.final.method} and {baseline.final.method} were not trained on the same label masks (their hashes "
            "differ): a paired difference needs the same data, labels and seeds; compare them without a baseline"
        )
    return None if run is baseline else paired(run, baseline, "error")
