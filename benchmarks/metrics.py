"""Metrics of generated images: Frechet distance, neighbourhoods and kernel distance, in seconds and memory.

    python -m benchmarks.metrics [--quick]      one JSON line per measurement; minutes, or seconds with --quick

    fid      `frechet.fid` on random features of Inception's width; `ratio` is the seconds of the textbook form, the
             matrix square root of scipy.linalg.sqrtm, over those of `frechet.distance` on the same moments, interleaved
    prdc     `manifold.prdc` beside the authors' package `prdc` where it is installed; `ratio` is the package's seconds
             over ours
    kid      `kernel.kid` on the features of `fid`

Every line comes from a process of its own. Its `memory_mib` is by how much the first call raises ru_maxrss, the most
that the process has held, from where the features are in place: what LAPACK and threads take counts, as tracemalloc
would not have it. Timings are the median of several after that call. Compare them where `load` is low: threads of BLAS
that wait for a core slow each other many times over (`OPENBLAS_NUM_THREADS=1` on a busy machine).
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import io
import json
import os
import resource
import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy

from benchmarks.step import alone, interleaved, machine, rounded
from ssl_gen.metrics import frechet, kernel, manifold

NEIGHBOURS = 5  # k of `prdc`
FID_SECONDS, FID_RATIO, FID_MATRICES = 12, 5, 3  # targets: seconds, times faster, covariance matrices of memory; ours
PRDC_MIB = 1024  # limit; ours
MIB = 2**20


class Scale(NamedTuple):
    """How much is measured."""

    samples: int  # on each side
    width: int  # of the features of Frechet and kernel distance; Inception's is 2,048
    prdc_width: int  # of the features of neighbourhoods
    repeats: int  # timed calls


FULL = Scale(10_000, 2048, 512, 3)
QUICK = Scale(150, 64, 32, 3)


def features(samples: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets (N, F) float32 of random numbers, the second a little wider and moved; nothing larger is held."""
    random = np.random.default_rng(0)
    real, fake = (random.standard_normal((samples, width), np.float32) for _ in range(2))
    fake *= 1.1
    fake += 0.1
    return real, fake


def growth(call: Callable[[], object]) -> float:
    """MiB by which a call raises the most that this process has held."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    call()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


def medians(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each call."""
    return {name: statistics.median(seconds) for name, seconds in interleaved(calls, repeats).items()}


def about(kind: str, samples: int, width: int) -> dict[str, Any]:
    """What was measured, and with which threads and libraries of linear algebra."""
    threads = {name: os.environ[name] for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS") if name in os.environ}
    versions = {"numpy": np.__version__, "scipy": scipy.__version__}
    return {"kind": kind, "samples": samples, "width": width, "threads": threads or "default"} | versions


def textbook(a: frechet.Gaussian, b: frechet.Gaussian) -> float:
    """The Frechet distance by the square root of the product of covariances; Heusel et al. 2017, arXiv:1706.08500."""
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    return float(((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance + b.covariance - 2 * root))


def fid_line(scale: Scale) -> dict[str, Any]:
    """Frechet distance: the whole from features, its two parts, and the textbook form of the second."""
    real, fake = features(scale.samples, scale.width)
    memory = growth(lambda: frechet.fid(real, fake))
    moments = frechet.gaussian([real]), frechet.gaussian([fake])
    calls: dict[str, Callable[[], object]] = {
        "fid": functools.partial(frechet.fid, real, fake),
        "gaussian": functools.partial(frechet.gaussian, [real]),
        "distance": functools.partial(frechet.distance, *moments),
        "sqrtm": functools.partial(textbook, *moments),
    }
    seconds = medians(calls, scale.repeats)
    numbers = {"seconds": seconds["fid"], "ratio": seconds["sqrtm"] / seconds["distance"]}
    numbers |= {"memory_mib": memory, "memory_matrices": memory * MIB / (8 * scale.width**2)}
    numbers |= {"value": frechet.distance(*moments), "sqrtm_value": textbook(*moments)}
    targets = {"target_seconds": FID_SECONDS, "target_ratio": FID_RATIO, "target_matrices": FID_MATRICES}
    parts = {"seconds_of": rounded(seconds)}
    return about("fid", scale.samples, scale.width) | rounded(numbers) | parts | targets | machine()


def prdc_line(scale: Scale) -> dict[str, Any]:
    """Precision, recall, density and coverage, beside the package where it is installed."""
    real, fake = features(scale.samples, scale.prdc_width)
    memory = growth(lambda: manifold.prdc(real, fake, NEIGHBOURS))
    calls: dict[str, Callable[[], object]] = {"prdc": functools.partial(manifold.prdc, real, fake, NEIGHBOURS)}
    if importlib.util.find_spec("prdc"):
        calls["package"] = functools.partial(package, real, fake)
    seconds = medians(calls, scale.repeats)
    numbers = {"seconds": seconds["prdc"], "memory_mib": memory}
    if "package" in calls:
        numbers["ratio"] = seconds["package"] / seconds["prdc"]
    parts = {"seconds_of": rounded(seconds), "limit_mib": PRDC_MIB}
    return about("prdc", scale.samples, scale.prdc_width) | rounded(numbers) | parts | machine()


def package(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """What the authors' package computes; it prints, and lines here are JSON."""
    from prdc import compute_prdc

    with contextlib.redirect_stdout(io.StringIO()):
        return compute_prdc(real, fake, NEIGHBOURS)


def kid_line(scale: Scale) -> dict[str, Any]:
    """Kernel distance."""
    real, fake = features(scale.samples, scale.width)
    memory = growth(lambda: kernel.kid(real, fake))
    seconds = medians({"kid": functools.partial(kernel.kid, real, fake)}, scale.repeats)
    numbers = {"seconds": seconds["kid"], "memory_mib": memory}
    return about("kid", scale.samples, scale.width) | rounded(numbers) | machine()


def lines(scale: Scale) -> Iterator[dict[str, Any]]:
    """All measurements, in the order of this page."""
    for line in (fid_line, prdc_line, kid_line):
        yield alone(line, scale)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few and narrow features, to see that it runs")
    for line in lines(QUICK if parser.parse_args().quick else FULL):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
