"""The command `ssl-gen`: parsing and printing, nothing else. Heavy imports wait until a command needs them."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

USAGE = """usage: ssl-gen COMMAND ...

Semi-supervised image generation: many images, few labels.

commands:
  train METHOD       train with one or several seeds; the same command again resumes
  evaluate RUN       measure a finished run again, or by other metrics
  train-features D   train the net whose features compare the images of a data set
  sample RUN         draw images from a run's generator
  latents RUN        look at what a run's latents hold: pictures for its report, and errors
  predict RUN PATH   label images: file, label, probability
  export RUN         weights, model card and programs that need no library of ours
  compare RUN ...    several finished runs on one page: numbers, real differences, samples, cost
  list WHAT          what there is: methods, datasets or metrics

`ssl-gen COMMAND --help` says what each takes, `ssl-gen train METHOD --help` the settings of a method.
"""

PRESETS = ("paper", "photographs")  # the settings that a method starts from

RunFolder = Annotated[Path, tyro.conf.Positional]


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Measure a finished run again, by the usual metrics or by those named; adds to its final.json."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]  # folders of runs, or of an experiment: a column each
    metrics: tuple[str, ...] = ()  # names of `ssl-gen list metrics`; by default the usual ones that apply
    features: str | None = None  # auto, pixels, random, trained or a weights file; by default the run's own
    samples: int | None = None  # drawn for the metrics; by default the run's own
    out_of_distribution_dataset: str | None = None  # images of no class, for auroc
    data_dir: Path | None = None  # where raw or prepared data lie, if not where they were


@dataclasses.dataclass(frozen=True)
class TrainFeatures:
    """Train a convolutional net on all labels of a data set; its features compare images, its classes judge them."""

    dataset: Annotated[str, tyro.conf.Positional]  # a name of `ssl-gen list datasets`, folder:PATH or npz:PATH
    data_dir: Path | None = None  # where raw or prepared data lie
    size: int | None = None  # pixels; resize every image to size x size
    steps: int = 4_000  # updates, of 100 images each
    out: Path | None = None  # the weights file; by default one in the user's cache, where `--features trained` looks
    quiet: bool = False  # no progress bar


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draw images from a run's generator: one PNG with a column a class, or a folder with a PNG an image."""

    run: RunFolder  # the run's folder
    label: str | None = None  # a class by name or number; by default all, a column each
    count: int = 25  # images in all of one class, or of each
    seed: int = 0  # of the noise
    replica: int = 0  # which of the run's seeds
    out: Path | None = None  # a .png for one picture, else a folder for NAME_0000.png, ...; by default RUN/grid.png


@dataclasses.dataclass(frozen=True)
class Latents:
    """Look at what a run's latents hold: styles by class, paths between images, a map, errors from latents."""

    run: RunFolder  # the run's folder, where the pictures go, and into its report
    replica: int = 0  # which of the run's seeds
    count: int = 2_000  # test images encoded
    seed: int = 0  # of the choice of images
    data_dir: Path | None = None  # where raw or prepared data lie, if not where they were


@dataclasses.dataclass(frozen=True)
class Predict:
    """Label images with a run's classifier (the mean over its seeds): file, label, probability."""

    run: RunFolder  # the run's folder
    path: RunFolder  # an image or a folder of images, searched through
    out: Path = Path("labels.csv")  # the table
    skip_unreadable: bool = False  # leave out files that cannot be read, and count them


@dataclasses.dataclass(frozen=True)
class Export:
    """Write weights (safetensors), a model card (JSON) and programs that need no library of ours (StableHLO)."""

    run: RunFolder  # the run's folder
    out: Path  # the folder to write to
    replica: int = 0  # which of the run's seeds


@dataclasses.dataclass(frozen=True)
class Compare:
    """Put finished runs on one page: numbers, which differences are real, curves over labels, samples, cost."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]  # folders of runs, or folders that hold runs
    out: Path = Path("compare.html")  # the page, one file that needs no network
    metrics: tuple[str, ...] = ()  # names without features and counts; by default error, agreement, fid, cas, coverage
    baseline: str | None = None  # the run that the others are paired with; by default all pairs, or the first of many


@dataclasses.dataclass(frozen=True)
class List:
    """What there is, by name."""

    what: Annotated[Literal["methods", "datasets", "metrics"], tyro.conf.Positional]
    json: bool = False  # as a JSON list of objects


def parse(kind: Any, arguments: Sequence[str], program: str, description: str | None = None) -> Any:
    """The arguments as a `kind`; whatever is wrong becomes one line (UserError)."""
    from ssl_gen.types import UserError

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=list(arguments), prog=program, description=description)
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(one_line(said.getvalue(), program)) from None


def one_line(message: str, program: str) -> str:
    """What tyro says in a box, in one line: without its rules, its title and the help of the argument."""
    lines = [
        line.strip(" │─╭╮╰╯-") if set(line) <= set(" │─╭╮╰╯-") else line.strip(" │") for line in message.splitlines()
    ]
    body = " ".join(line for line in lines[1:] if line)
    body = re.split(r"Argument helptext:|For full helptext", body)[0].strip()
    return f"{re.sub(' +', ' ', body)} (see {program} --help)"


def parse_with_sampler(kind: Any, arguments: Sequence[str], program: str) -> tuple[Any, dict[str, Any]]:
    """The arguments as a `kind`, and the settings of the sampler of the runs that they name, --sampler.FIELD.

    Raises UserError where runs are of methods whose samplers have other settings.
    """
    if not any(word.startswith("--sampler") or word in ("-h", "--help") for word in arguments):
        return parse(kind, arguments, program), {}
    from ssl_gen.runs.load import find_runs, sampler_of
    from ssl_gen.types import UserError

    places = named_runs(kind, arguments, program)
    samplers = [sampler_of(folder) for folder in find_runs(places)] if places else []
    if not samplers or not dataclasses.fields(samplers[0]):
        return parse(kind, arguments, program), {}
    if any(sampler != samplers[0] for sampler in samplers):
        raise UserError("these runs have samplers of different settings: give one at a time")
    field = ("sampler", type(samplers[0]), dataclasses.field(default=samplers[0]))
    extended = dataclasses.make_dataclass(kind.__name__, [field], bases=(kind,), frozen=True)
    extended.__doc__ = kind.__doc__
    asked = parse(extended, arguments, program)
    return asked, dataclasses.asdict(asked.sampler)


def named_runs(kind: Any, arguments: Sequence[str], program: str) -> list[Path]:
    """The folders that stand where a `kind` has its runs; where help is asked for, those that hold a run."""
    if not {"-h", "--help"}.isdisjoint(arguments):
        return [Path(word) for word in arguments if (Path(word) / "run.json").is_file()]
    words, rest = iter(arguments), []
    for word in words:
        if not word.startswith("--sampler."):
            rest.append(word)
        elif "=" not in word:
            next(words, None)  # its value
    asked = parse(kind, rest, program)
    return list(asked.runs) if hasattr(asked, "runs") else [asked.run]


def train(arguments: Sequence[str]) -> int:
    """`ssl-gen train METHOD ...`"""
    from ssl_gen.methods import METHODS
    from ssl_gen.runs import train as training
    from ssl_gen.runs.catalogue import find_method, with_steps
    from ssl_gen.runs.options import Options
    from ssl_gen.training.cache import keep_compiled
    from ssl_gen.types import UserError

    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: ssl-gen train METHOD ...\n\nmethods: {', '.join(METHODS)}")
        print("\n`ssl-gen train METHOD --help` says what each can be set to.")
        return 0 if arguments else 2
    name, *rest = arguments
    if name.startswith("-"):
        raise UserError(f"give a method before {name}: ssl-gen train METHOD {name} ...")
    module = find_method(name)
    keep_compiled()
    default = preset(name, module, rest)
    fields: list[tuple[str, Any, Any]] = [
        (
            "preset",
            Annotated[
                Literal[PRESETS],
                tyro.conf.arg(help="settings to start from: the paper's, or for 32 x 32 colour photographs"),
            ],
            dataclasses.field(default=PRESETS[0]),
        ),
        ("options", Annotated[Options, tyro.conf.arg(name="")], dataclasses.field(default=Options())),
        (
            "steps",
            Annotated[int | None, tyro.conf.arg(help="updates in all; the same as --config.steps")],
            dataclasses.field(default=None),
        ),
        ("config", module.Config, dataclasses.field(default=default)),
    ]
    settings = dataclasses.make_dataclass("Settings", fields, frozen=True)
    title = str(module.__doc__).split("\n\n")[0].replace("\n", " ")
    chosen = parse(settings, rest, f"ssl-gen train {name}", f"{title} {module.PAPER}")
    config = chosen.config
    if chosen.steps is not None:
        config = with_steps(name, config, chosen.steps)
    result = training.train(name, config, chosen.options)
    return report(result) if result.is_main else 0


def preset(name: str, module: Any, arguments: Sequence[str]) -> Any:
    """The settings that a method starts from: its paper's, or with --preset photographs those for 32 x 32 colour."""
    from ssl_gen.types import UserError

    words = [word for argument in arguments for word in argument.split("=", 1)]
    if "--preset" not in words[:-1] or words[words.index("--preset") + 1] != "photographs":
        return module.Config()
    if not hasattr(module, "PHOTOGRAPHS"):
        raise UserError(f"{name} has no settings of its own for photographs: leave out --preset")
    return module.PHOTOGRAPHS


def report(result: Any) -> int:
    """Print what a run came to."""
    from ssl_gen.reports import tables

    final = result.final
    if final is None:
        print(f"stopped; the same command goes on: {result.command}")
        return 0
    rows = [[name, tables.measured(name, values)] for name, values in final.metrics.items()]
    print(tables.text_table(["metric", "mean ± std (n)"], rows))
    for name, reason in final.unmeasured.items():
        print(f"{name} could not be measured: {reason}")
    for stop in final.stopped:
        print(f"seed {stop.seed} stopped at step {stop.step}: {stop.metric} was {stop.value}")
    print(f"{final.seconds:.0f} s of training; report: {result.folder / 'report.html'}")
    return 0


def evaluate(arguments: Sequence[str]) -> int:
    """`ssl-gen evaluate RUN ...`"""
    asked, sampler = parse_with_sampler(Evaluate, arguments, "ssl-gen evaluate")
    from ssl_gen.reports import tables
    from ssl_gen.runs import evaluate as evaluating
    from ssl_gen.runs.load import find_runs

    given = {name: getattr(asked, name) for name in ("features", "samples", "out_of_distribution_dataset", "data_dir")}
    changes = {name: value for name, value in given.items() if value is not None}
    folders = find_runs(asked.runs)
    found = [evaluating.evaluate(folder, asked.metrics, sampler, **changes).metrics for folder in folders]
    rows = [
        [name, *(tables.measured(name, metrics.get(name)) for metrics in found)]
        for name in dict.fromkeys(name for metrics in found for name in metrics)
    ]
    print(tables.text_table(["mean ± std (n)", *(folder.name for folder in folders)], rows))
    return 0


def train_features(arguments: Sequence[str]) -> int:
    """`ssl-gen train-features DATASET ...`"""
    asked = parse(TrainFeatures, arguments, "ssl-gen train-features")
    from ssl_gen.evaluation import proxy_classifier
    from ssl_gen.training.cache import keep_compiled

    keep_compiled()
    path, name, error = proxy_classifier.train_features(**dataclasses.asdict(asked))
    print(f"{name} in {path}" + ("" if error is None else f", test error {error:.2f} %"))
    return 0


def sample(arguments: Sequence[str]) -> int:
    """`ssl-gen sample RUN ...`"""
    asked, settings = parse_with_sampler(Sample, arguments, "ssl-gen sample")
    import numpy as np

    from ssl_gen.core.files import writing
    from ssl_gen.reports.charts import pictures
    from ssl_gen.runs.load import find_class, load
    from ssl_gen.runs.pictures import save_images
    from ssl_gen.types import UserError

    run = load(asked.run)
    names, conditional = run.record.data.class_names, run.compiled.method.conditional
    if asked.count < 1 or not 0 <= asked.replica < len(run.states):
        raise UserError(f"--count is at least 1, --replica one of 0 to {len(run.states) - 1}")
    classes = list(range(len(names))) if asked.label is None else [find_class(asked.label, names, conditional)]
    labels = np.tile(classes, asked.count)
    images = run.draw(labels, asked.seed, asked.replica, run.sampler(**settings))
    mask = run.record.masks[asked.replica]
    text = {"method": run.record.method, "seed": str(run.record.seeds[asked.replica])}
    text |= {"mask": mask.name, "mask_sha256": mask.sha256}
    text |= {"sampler": ", ".join(f"{name} {value}" for name, value in settings.items())} if settings else {}
    path = asked.out or run.folder / "grid.png"
    if path.suffix.lower() != ".png":
        named = [names[k] for k in labels] if conditional else ["sample"] * len(labels)
        saved = save_images(path, images, named, text)
        print(f"{len(saved)} images in {path}, {saved[0].name} to {saved[-1].name}")
        return 0
    columns = len(classes) if len(classes) > 1 else max(1, round(asked.count**0.5))
    rows = len(labels) // columns
    grid = images[: rows * columns].reshape(rows, columns, *images.shape[1:])
    titles = [names[k] for k in classes] if len(classes) > 1 and conditional else None
    with writing(path):
        pictures.save_grid(path, grid, titles, text=text)
    print(path)
    return 0


def latents(arguments: Sequence[str]) -> int:
    """`ssl-gen latents RUN ...`"""
    asked = parse(Latents, arguments, "ssl-gen latents")
    from ssl_gen.reports import tables
    from ssl_gen.runs.latents import look

    found = look(asked.run, asked.replica, asked.count, asked.seed, asked.data_dir)
    for picture in found.pictures:
        print(f"{asked.run / picture.file}: {picture.caption}")
    if found.errors:
        rows = [
            [name, *(f"{each[kind]:.2f} %" for kind in ("latents", "pixels"))] for name, each in found.errors.items()
        ]
        print(tables.text_table(["error of", "from latents", "from pixels"], rows))
    for line in found.left_out:
        print(line)
    print(f"report: {asked.run / 'report.html'}")
    return 0


def predict(arguments: Sequence[str]) -> int:
    """`ssl-gen predict RUN PATH ...`"""
    asked = parse(Predict, arguments, "ssl-gen predict")
    import csv

    from ssl_gen.core.files import writing
    from ssl_gen.datasets import folders, summary
    from ssl_gen.datasets.names import readable
    from ssl_gen.runs.load import load

    run = load(asked.run)
    data = run.record.data
    files, images, reading = folders.read_to_fit(asked.path, data.spec.shape, asked.skip_unreadable)
    probabilities = run.classify(images)
    with writing(asked.out), open(asked.out, "w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(["file", "label", "probability", "calibrated"])
        for file, row in zip(files, probabilities, strict=True):
            mended = "yes" if run.calibrated else "no"
            table.writerow([readable(file), data.class_names[row.argmax()], f"{row.max():.4f}", mended])
    print(f"{len(files)} images labelled in {asked.out}; {summary.said_of_left_out(reading.left_out)}")
    for warning in reading.warnings:
        print(f"warning: {warning}")
    print(calibration(run))
    return 0


def calibration(run: Any) -> str:
    """Whether the probabilities of a run can be believed, and why not."""
    if run.calibrated:
        return f"probabilities are calibrated on {run.record.data.validation} validation images"
    if run.final is None:
        return "probabilities are not calibrated: the run is not finished"
    if "temperature" in run.final.unmeasured:
        return f"probabilities are not calibrated: {run.final.unmeasured['temperature']}"
    return "probabilities are not calibrated: train with --validation N to hold out N labelled images for that"


def export(arguments: Sequence[str]) -> int:
    """`ssl-gen export RUN --out DIR`"""
    asked, settings = parse_with_sampler(Export, arguments, "ssl-gen export")
    from ssl_gen.runs import export as exporting

    card = exporting.save(asked.run, asked.out, asked.replica, **settings)
    for file in (exporting.WEIGHTS, *(program.file for program in card.programs.values()), exporting.CARD):
        print(asked.out / file)
    if card.licence == exporting.UNKNOWN:
        print(f"the licence of the data is not known: write it into {asked.out / exporting.CARD}")
    return 0


def compare(arguments: Sequence[str]) -> int:
    """`ssl-gen compare RUN RUN ...`"""
    asked = parse(Compare, arguments, "ssl-gen compare")
    from ssl_gen.core.files import writing
    from ssl_gen.reports import tables
    from ssl_gen.reports.compare import page
    from ssl_gen.reports.compare.columns import table
    from ssl_gen.reports.compare.entries import chosen, names_of, read
    from ssl_gen.runs.load import find_runs

    folders = find_runs(asked.runs)
    entries = [read(*each) for each in zip(folders, names_of(folders), strict=True)]
    rendered = page.render(entries, asked.metrics, asked.baseline)
    print(tables.text_table(*table(entries, chosen(entries, asked.metrics))))
    with writing(asked.out):
        asked.out.write_text(rendered, encoding="utf-8")
    print(asked.out)
    return 0


def listing(arguments: Sequence[str]) -> int:
    """`ssl-gen list WHAT`"""
    asked = parse(List, arguments, "ssl-gen list")
    import json

    from ssl_gen.runs.catalogue import catalogue

    entries = catalogue(asked.what)
    if asked.json:
        print(json.dumps(entries, indent=1))
        return 0
    for entry in entries:
        print(f"{entry['name']:20} {entry['description']}")
    return 0


COMMANDS = {"train": train, "evaluate": evaluate, "train-features": train_features}
COMMANDS |= {"sample": sample, "latents": latents, "predict": predict, "export": export, "list": listing}
COMMANDS |= {"compare": compare}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; what the user did wrong is one line on the error stream and status 2."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names that the terminal cannot write
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    if arguments[0] not in COMMANDS:
        near = difflib.get_close_matches(arguments[0], COMMANDS) or COMMANDS
        print(f"ssl-gen: there is no command {arguments[0]}; did you mean {' or '.join(near)}?", file=sys.stderr)
        return 2
    from ssl_gen.types import UserError

    try:
        return COMMANDS[arguments[0]](arguments[1:])
    except UserError as error:
        print(f"ssl-gen: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
