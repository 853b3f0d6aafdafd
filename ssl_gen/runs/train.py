"""One run from its settings to its record: what the command line, the experiments and `import ssl_gen` all call."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ssl_gen.core import failures, names
from ssl_gen.core.files import claimed, say, sha256, writing
from ssl_gen.core.memory import Memory
from ssl_gen.core.plain import from_plain, to_plain
from ssl_gen.core.precision import chosen, products_in
from ssl_gen.core.wording import size
from ssl_gen.datasets.batches import Rows
from ssl_gen.datasets.store import Store, choose_store, open_store
from ssl_gen.evaluation.inference import Compiled, compiled, probabilities
from ssl_gen.evaluation.reference import Reference
from ssl_gen.metrics import classification
from ssl_gen.metrics.statistics import Summary
from ssl_gen.networks.pretrained.sources import HUB
from ssl_gen.reports import records, run_folder, tested
from ssl_gen.reports.charts import pictures
from ssl_gen.reports.records import EncoderRecord, FinalRecord, PartRecord, ReadRecord, RunRecord
from ssl_gen.reports.run import page
from ssl_gen.runs import evaluators
from ssl_gen.runs.catalogue import checked, checked_config, find_method
from ssl_gen.runs.data import Data, check_alignment, check_pool, feed, initial_rows, load_data
from ssl_gen.runs.evaluate import make_reference
from ssl_gen.runs.fit import Encoder, check_options, compiled_on, encoder_replicas, extracted, fit_seeds
from ssl_gen.runs.labeller import Labeller, check_labeller, open_labeller, told
from ssl_gen.runs.load import is_final, load
from ssl_gen.runs.options import Options
from ssl_gen.runs.pictures import SAMPLES, attempt_grid
from ssl_gen.runs.record import conclude, describe
from ssl_gen.runs.rounds import chooser
from ssl_gen.training import loop, trackers
from ssl_gen.training.checkpoints import newest_whole, open_checkpoints
from ssl_gen.training.log import Log, NullLog, text_of
from ssl_gen.training.mesh import idle
from ssl_gen.training.processes import SINGLE_PROCESS, ProcessGroup, join, words
from ssl_gen.training.programs import Replicas, check_memory
from ssl_gen.training.replicas import make_replicas
from ssl_gen.training.segments import Every, Segment, choose_every
from ssl_gen.types import Method, State, Tree, UserError


class Result(NamedTuple):
    """What a call of `train` left behind."""

    folder: Path
    final: FinalRecord | None  # None for a run that was interrupted
    command: str  # the same again; it resumes
    is_main: bool = True  # of several processes the one that wrote it


class Job(NamedTuple):
    """A run that is to be trained, all of it checked."""

    target: Path
    record: RunRecord
    compiled: Compiled
    data: Data
    options: Options
    reference: Callable[[], Reference]  # made when it is first asked for; a finished run is read and needs none
    every: Every
    asked: list[evaluators.Asked]
    encoder: Encoder | None
    labeller: Labeller | None
    group: ProcessGroup


class Begun(NamedTuple):
    """A job before its first step, on the devices that it trains on."""

    replicas: Replicas
    states: Tree  # in the replicas' own form
    rows: Callable[[Segment], Rows]
    store: Store


def default_folder(name: str, options: Options) -> Path:
    """runs/METHOD-DATASET-LABELS."""
    dataset = "".join(c if c.isalnum() or c in "_." else "-" for c in options.dataset).strip("-")
    return Path("runs") / f"{name}-{names.plain(dataset)}-{options.labels}"


def train(name: str, config: Any = None, options: Options | None = None, data: Data | None = None) -> Result:
    """Train a method with every seed, or go on where an earlier call of the same stopped; evaluate; write the record.

    config: the method's own Config (None: its defaults); data: what `load_data` gave of the same options, where it was
    called already. Raises UserError for wrong settings, for a folder that holds another run or that another process
    writes to. After SIGTERM or Ctrl-C the state is kept and `final` is None.
    With `distributed` every process calls it alike, and the main one alone writes; an error of one is one of all.
    """
    options = options or Options()
    group = join() if options.distributed else SINGLE_PROCESS
    with group.failing_together():
        job = prepare(name, config, options, group, data)
        if group.is_main and job.record.read is not None:
            announce(job.record.read)
        held = claimed(job.target) if group.is_main else contextlib.nullcontext()
        with resumable(job), held, writing(job.target, "the same command goes on"):
            plain = group.broadcast(lambda: already_finished(job))
            if plain is None:
                plain = train_claimed(job)
    final = None if plain is None else from_plain(FinalRecord, plain)
    return Result(job.target, final, job.record.command, group.is_main)


def announce(read: ReadRecord) -> None:
    """What was read, before anything is trained on it: also with `quiet`, which is of the progress bar."""
    for text in (read.line, *(f"warning: {warning}" for warning in read.warnings)):
        print(text, flush=True)


def prepare(
    name: str, config: Any, options: Options, group: ProcessGroup = SINGLE_PROCESS, data: Data | None = None
) -> Job:
    """All that can be known before training; `data` as in `train`. Raises UserError for what does not fit together."""
    module, config, options = find_method(name), checked_config(name, config), checked(options)
    trackers.check(("tensorboard",) if options.tensorboard else (), "--tensorboard")
    trackers.check(options.track)
    data = load_data(options, chooser(options)) if data is None else data
    products = chosen(options.precision)
    with products_in(products):
        method: Method = module.make(config, data.spec)
    check_options(name, method, options)
    check_memory(name, method, memory_of(options), data.spec.shape, options.data_parallel)
    products = products if method.fit is None else "float32"
    check_pool(data, method.phases)
    check_alignment(config, options.mask)
    encoder = None if options.encoder is None else open_encoder(options.encoder, options, data)
    check_labeller(name, method, options, data)
    labeller = open_labeller(options, data)
    reference = functools.cache(lambda: make_reference(data, options))
    every, asked = Every(1, 1, 1), []
    if method.fit is None:
        steps = sum(phase.steps for phase in method.phases)
        every = choose_every(steps, options.log_every, options.evaluate_every, options.checkpoint_every)
        asked = evaluators.parse(options.evaluators, steps, every)
    intervals = evaluators.intervals(every, asked)
    record = describe(
        name,
        config,
        options,
        data,
        method,
        intervals,
        encoder and encoder.record,
        labeller and labeller.record,
        group,
        products,
    )
    records.check_alike(group.all_gather(records.common(record)))
    functions = compiled_on(method, encoder.method, encoder.record) if encoder else compiled(method)
    target = Path(options.out or default_folder(name, options))
    if not (target / "final.json").exists():
        evaluators.check(asked, method, reference())
    return Job(target, record, functions, data, options, reference, every, asked, encoder, labeller, group)


@contextlib.contextmanager
def resumable(job: Job) -> Iterator[None]:
    """Within, what the machine refuses (a full disk, memory) is a UserError that says how and where the run goes on."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = failures.in_words(error)
        if reason is None or reason == failures.LOST:  # which is no fault of the user's: status 1
            raise
        folder = job.target / "checkpoints"
        steps = [int(each.name) for each in folder.iterdir() if each.name.isdecimal()] if folder.is_dir() else []
        where = f" from step {max(steps)}" if any(steps) else ""
        raise UserError(f"{reason}; the same command goes on{where}: {job.record.command}") from error


def already_finished(job: Job) -> Any:
    """final.json of a folder that is ours, None where something of it is to be made (again).

    The report is drawn anew, for a run may have been killed before. Raises UserError where it holds another run, by
    run.json or, where that is lost, by its checkpoints.
    """
    if not (job.target / "run.json").exists():
        whole = newest_whole(job.target / "checkpoints")
        records.check_note(job.target, whole and whole.note, job.record)
    records.agree(job.target, job.record)
    _, final = records.load_both(job.target)
    if final is None:
        return None
    lost = what_is_lost(job, final)
    if lost:
        say(f"{job.target} is finished but {', '.join(lost)}: made again from the newest whole checkpoint")
        return None
    page.write(job.target)
    return to_plain(final)


def what_is_lost(job: Job, final: FinalRecord) -> list[str]:
    """What of a finished run is missing or is not as it was written, in words."""
    lost = []
    whole = newest_whole(job.target / "checkpoints")
    if whole is None or not is_final(whole.step, job.record, final):
        lost.append("its last checkpoint is not whole")
    if not run_folder.has_whole_log(job.target, final):
        lost.append("metrics.jsonl is damaged")
    drawn = job.compiled.sample and len(final.stopped) < len(final.seeds) and SAMPLES not in final.unmeasured
    if drawn and not pictures.is_whole(job.target / SAMPLES):
        lost.append(f"{SAMPLES} is missing or damaged")
    if not tested.is_whole(job.target):
        lost.append(f"{tested.PICTURE} is missing or damaged")
    return lost


def open_encoder(name: str, options: Options, data: Data) -> Encoder:
    """An earlier run for its latents, or an extractor. Raises UserError where it does not fit `data`."""
    if name.startswith(HUB) or not (Path(name).is_dir() or ("/" in name and not Path(name).is_file())):
        return extracted(name, options, data)
    if options.encoder_size is not None:
        raise UserError("--encoder-size is for pretrained networks, not for the latents of a run")
    earlier = load(name)
    replicas = encoder_replicas(earlier.record, earlier.compiled.method, data)
    of = earlier.record
    record = EncoderRecord(of.method, of.config, of.steps, products=of.products)
    return Encoder(earlier.compiled.method, [earlier.states[replica] for replica in replicas], record)


def memory_of(options: Options) -> Memory:
    """How the options save memory in training."""
    return Memory(options.accumulate, options.remat)


def begin(job: Job, longest: int) -> Begun:
    """The seeds of a job, in calls of up to `longest` steps."""
    method, data, options = job.compiled.method, job.data, job.options
    seeds, several = job.record.seeds, job.group.count > 1
    images = data.dataset.train_images
    places = job.group.all_gather(choose_store(images, options.store))  # each process has its own free memory
    store = open_store(images, "stream" if "stream" in places else "device", several)
    replicas = make_replicas(
        method,
        store,
        len(seeds),
        options.replicas,
        options.data_parallel,
        longest,
        several=several,
        shard=options.shard_params,
        memory=memory_of(options),
    )
    states = replicas.init(seeds, initial_rows(data))
    return Begun(replicas, states, feed(data, method.phases, told(method, data, job.labeller)), store)


def train_claimed(job: Job) -> Any:
    """Train in a folder that is ours; final.json's content, or None where a signal stopped it.

    Of several processes the main one alone evaluates, on its own devices: no number that another one computes is kept,
    and all that follows from one is told. The others wait for its word, not in a collective.
    """
    group, seeds, method, options = job.group, job.record.seeds, job.compiled.method, job.options
    with contextlib.ExitStack() as opened:
        kept = open_checkpoints(job.target / "checkpoints", group)
        opened.enter_context(contextlib.closing(kept))
        records.check_note(job.target, kept.note, job.record)
        begun = records.load_run(job.target) if group.is_main else job.record  # the others write nothing
        parts = records.parts(kept.note, kept.step, begun, job.record)
        kept = kept._replace(identity=records.identity(job.record) | {"parts": to_plain(parts)})
        devices = 1
        before = () if method.fit else kept.log  # a method fitted in one go is fitted again
        log = Log(job.target, before, open_trackers(job)) if group.is_main else NullLog()
        opened.callback(log.close)
        if method.fit:

            def evaluate(state: State) -> dict[str, float]:
                return evaluators.errors(job.compiled, job.data, state)

            outcome = fit_seeds(method, job.data, log, kept, evaluate, job.encoder, options.quiet)
            states = dict(enumerate(outcome.states))
        else:
            during = evaluators.make(
                job.asked, job.target, job.record.method, job.compiled, job.data, job.reference(), group.is_main
            )
            replicas, initial, rows, _ = begin(job, min(*job.every, *(evaluator.every for evaluator in during)))
            devices = replicas.devices
            if group.is_main:
                check_room(job.target, initial)
                warn_of_idle(job, replicas)
            outcome = loop.train(
                replicas, method.phases, rows, seeds, job.every, log, kept, during, initial, options.quiet, group
            )
            ended = [] if outcome.interrupted else [i for i in range(len(seeds)) if i not in outcome.stopped]
            states = {i: replicas.replica(outcome.states, i) for i in ended}
    return group.broadcast(lambda: concluded(job, outcome, states, log.lines, devices, parts))


def open_trackers(job: Job) -> list[trackers.Guarded]:
    """The trackers that a run asks for. Raises UserError for one that cannot be written to."""
    names = (*(("tensorboard",) if job.options.tensorboard else ()), *job.options.track)
    record = to_plain(job.record)
    settings = {name: record[name] for name in ("method", "config", "dataset", "labels", "mask", "versions", "commit")}
    created = records.load_run(job.target).created  # of the first call, not of this one
    return list(trackers.opened(names, trackers.About(job.target, job.record.seeds, settings, created)))


def check_room(folder: Path, states: Tree) -> None:
    """Raise UserError where the disk cannot hold two checkpoints of `states`, the new beside the old, said before."""
    sizes = [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(words(states))]
    room = shutil.disk_usage(folder).free
    if room < 2 * sum(sizes):
        needed, left = size(2 * sum(sizes)), size(room)
        raise UserError(f"{folder}: its disk has {left} left, and checkpoints need {needed}: free some, or give --out")


def warn_of_idle(job: Job, replicas: Replicas) -> None:
    """Say where devices have nothing to do that as many seeds could use; with `--replicas loop` that is asked for."""
    there = jax.device_count() if job.group.count > 1 else jax.local_device_count()
    said = idle(len(job.record.seeds), job.options.data_parallel, replicas.devices, there)
    if said and replicas.mode != "loop":
        print(f"warning: {said}", flush=True)


def concluded(
    job: Job,
    outcome: loop.Outcome,
    states: dict[int, State],
    lines: Sequence[dict[str, Any]],
    devices: int,
    parts: Sequence[PartRecord],
) -> dict[str, Any] | None:
    """Samples, final.json and the report of the seeds that did not stop; only the report where a signal stopped it."""
    if outcome.interrupted:
        page.write(job.target)
        return None
    for seed in [seed for seed, state in states.items() if not finite(state)]:
        # its last losses were finite, and the update by them was not
        stop = {"seed": job.record.seeds[seed], "step": outcome.step, "metric": "params", "value": "nan"}
        outcome = outcome._replace(stopped=outcome.stopped | {seed: stop})
        states = {other: state for other, state in states.items() if other != seed}
    undrawn = ""
    if job.compiled.sample and states:
        replica = min(states)
        given = job.compiled, job.data, states[replica], replica, job.record.method
        undrawn = attempt_grid(job.target / SAMPLES, *given)
    final, outputs = conclude(job.record, job.compiled, job.data, states, outcome, lines, job.reference(), devices)
    final = records.in_parts(final, parts)
    if undrawn:
        final = dataclasses.replace(final, unmeasured=final.unmeasured | {SAMPLES: undrawn})
    if outputs:
        images, labels = job.data.dataset.test_images, job.data.dataset.test_labels
        tested.write(job.target, tested.choose(outputs, labels), images)
    if job.compiled.classify and states and len(job.data.validation[1]):
        of_seeds = {job.data.seeds[replica]: state for replica, state in states.items()}
        temperatures, reasons = calibrate(job.compiled, of_seeds, *job.data.validation)
        fitted = [temperatures.get(seed) for seed in job.record.seeds]
        final = dataclasses.replace(final, temperature=fitted, unmeasured=final.unmeasured | reasons)
    final = dataclasses.replace(final, log=sha256(text_of(lines)), metrics=final.metrics | more(job.target, final))
    records.write(job.target / "final.json", final)
    page.write(job.target)
    return to_plain(final)


def finite(state: State) -> bool:
    """Are the weights of all players finite, and their EMAs?"""
    players = [part for part in state._asdict().values() if hasattr(part, "params")]
    leaves = jax.tree.leaves([(player.params, player.ema, player.stats) for player in players])
    return all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in leaves)


def more(folder: Path, final: FinalRecord) -> dict[str, Summary]:
    """What `ssl-gen evaluate` has measured of a run that was finished before; none where its weights were others."""
    former = records.load_final(folder)
    if former is None:
        return {}
    if any(former.metrics.get(name, value) != value for name, value in final.metrics.items()):
        say(f"{folder} comes to other numbers than before: what was measured since then is left out")
        return {}
    return {name: value for name, value in former.metrics.items() if name not in final.metrics}


def calibrate(
    compiled: Compiled, states: Mapping[int, State], images: np.ndarray, labels: np.ndarray
) -> tuple[dict[int, float], dict[str, str]]:
    """The temperature of each seed on validation images (V, H, W, C) uint8 with labels (V,), and why one has none.

    A short run can get every validation image right, or none: then no temperature is best, and that loses no run.
    """
    found, reasons = {}, {}
    for seed, state in states.items():
        try:
            found[seed] = classification.temperature(probabilities(compiled, state, images), labels)
        except UserError as error:
            reasons["temperature"] = f"seed {seed}: {error}"
    return found, reasons
