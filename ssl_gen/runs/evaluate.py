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
from ssl_gen.runs.record import measure_seeds, to_measure
from ssl_gen.types import UserError


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
    `out_of_distribution_dataset`. Returns the new final.json. Raises UserError where the run is not finished or may not
    be written, a metric does not apply or the data are not those it was trained on; and where one that was named could
    not be measured, after the others have been kept. Of the usual ones the new final.json then has the reason.
    """
    run = load(path)
    run.finished  # noqa: B018 (raises where it is not)
    with claimed(run.folder, advice="copy the run to a place that you may write to"):
        pass  # before anything is measured
    chosen = run.sampler(**(sampler or {}))
    options, data = data_of(run, **changes)
    run.check_trained()
    states = {replica: run.states[replica] for replica in run.temperatures}
    reference = make_reference(data, options)
    tried, unmeasured = to_measure(run.compiled, reference, names), dict[str, str]()
    measured = measure_seeds(run.compiled, data, states, reference, tuple(tried), chosen, unmeasured)
    with claimed(run.folder, wait=True), writing(run.folder, "the same command measures again"):
        final = records.load_final(run.folder) or run.finished  # as it is now: others may have measured meanwhile
        reasons = {name: why for name, why in final.unmeasured.items() if name not in tried} | unmeasured
        final = dataclasses.replace(final, metrics=final.metrics | measured, unmeasured=reasons)
        records.write(run.folder / "final.json", final)
        if final.confusion and not ((run.folder / tested.RECORD).is_file() and tested.is_whole(run.folder)):
            images, labels = data.dataset.test_images, data.dataset.test_labels  # of a run that is older than these
            outputs = [probabilities(run.compiled, state, images) for state in states.values()]
            tested.write(run.folder, tested.choose(outputs, labels), images)
        page.write(run.folder)
    if names and unmeasured:
        name, why = next(iter(unmeasured.items()))
        raise UserError(f"{name} could not be measured: {why}")
    return final
