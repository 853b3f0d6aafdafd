"""A finished run, measured again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_gen.core.files import claimed, writing
from ssl_gen.evaluation import features, proxy_classifier
from ssl_gen.evaluation.inference import probabilities
from ssl_gen.evaluation.reference import Reference
from ssl_gen.reports import records, tested
from ssl_gen.reports.run import page
from ssl_gen.runs.data import Data
from ssl_gen.runs.load import data_of, load
from ssl_gen.runs.options import Options
from ssl_gen.runs.record import measure_seeds


def make_reference(data: Data, options: Options) -> Reference:
    """What the replicas of a run are measured against. Raises UserError where the features cannot be had."""
    spec = data.dataset.spec
    extractor = features.find_extractor(options.features, spec, options.dataset, data.source_sha256)
    fit = functools.partial(proxy_classifier.train_classifier, config=proxy_classifier.SCORE, spec=spec)
    return Reference(data.dataset, extractor, fit, data.out_of_distribution, options.samples)


def evaluate(
    path: str | Path, names: tuple[str, ...] = (), sampler: Mapping[str, Any] | None = None, **changes: Any
) -> records.FinalRecord:
    """Measure a finished run again, by the usual metrics or those named, and add them to its final.json.

    `sampler`: settings of the method's sampler that are to differ from its own; the names of metrics of samples say so.
    `changes` to the run's options: `data_dir`, where the data lie now, `features`, `samples`,
    `out_of_distribution_dataset`. Returns the new final.json. Raises UserError where the run is not finished, a metric
    does not apply or the data are not those it was trained on.
    """
    run = load(path)
    final = run.finished
    chosen = run.sampler(**(sampler or {}))
    options, data = data_of(run, **changes)
    run.check_trained()
    states = {replica: run.states[replica] for replica in run.temperatures}
    reference = make_reference(data, options)
    measured = measure_seeds(run.compiled, data, states, reference, names, chosen)
    with claimed(run.folder), writing(run.folder, "the same command measures again"):
        final = dataclasses.replace(final, metrics=final.metrics | measured)
        records.write(run.folder / "final.json", final)
        if final.confusion and not ((run.folder / tested.RECORD).is_file() and tested.is_whole(run.folder)):
            images, labels = data.dataset.test_images, data.dataset.test_labels  # of a run that is older than these
            outputs = [probabilities(run.compiled, state, images) for state in states.values()]
            tested.write(run.folder, tested.choose(outputs, labels), images)
        page.write(run.folder)
    return final
