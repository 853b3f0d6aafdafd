"""What each command takes, does and prints. Heavy imports wait until a command needs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ssl_gen.cli import settings_file
from ssl_gen.cli.arguments import RunFolder, parse, parse_given, parse_with_sampler
from ssl_gen.core import signals
from ssl_gen.core.wording import count, listed

QUICK = "quick"
PRESETS = ("paper", "photographs", "fast", QUICK)  # the settings that a method starts from
QUICK_SIZE, QUICK_SEEN = 32, 128  # pixels of a side; of what a pretrained network is to see
FEW = 100  # test images, below which one is more than a percent; ours


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Measure a finished run again, by the usual metrics or by those named; adds to its final.json."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]  # folders of runs, or of an experiment: a column each
    metrics: tuple[str, ...] = ()  # names of `ssl-gen list metrics`; by default the usual ones that apply
    # auto, pixels, random, trained, a weights file, efficientnet_lite0 (extra pretrained), mobilenet_v2, hf:OWNER/NAME;
    # by default the run's own
    features: str | None = None
    samples: int | None = None  # drawn for the metrics; by default the run's own
    out_of_distribution_dataset: str | None = None  # images of no class, for auroc
    data_dir: Path | None = None  # where raw or prepared data lie, if not where they were


@dataclasses.dataclass(frozen=True)
class TrainFeatures:
    """Train a convolutional net on all labels of a data set; its features compare images, its classes judge them."""

    dataset: Annotated[str, tyro.conf.Positional]  # a name of `ssl-gen list datasets`, folder:PATH or npz:PATH
    data_dir: Path | None = None  # where raw or prepared data lie
    size: int | None = None  # pixels; resize every image to size x size
    skip_unreadable: bool = False  # leave out files that cannot be read, and count them
    keep_copies: bool = False  # of a folder or npz: train also on images that equal a test or validation image
    steps: int = 4_000  # updates, of 100 images each
    out: Path | None = None  # the weights file; by default one in the user's cache, where `--features trained` looks
    quiet: bool = False  # no progress bar


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draw images from a run's generator: one PNG with a column a class, or a folder with a PNG an image."""

    run: RunFolder  # the run's folder
    label: str | None = None  # a class by name (or number, where no name is one); by default all, a column each
    count: int = 25  # images of one class, or of each; in all where samples obey no label
    seed: int = 0  # of the noise
    replica: int | None = None  # which of the run's seeds; by default the first that did not stop
    out: Path | None = None  # a .png for one picture, else a folder for NAME_0000.png, ...; by default RUN/grid.png
    overwrite: bool = False  # also what is there and not as it was drawn


@dataclasses.dataclass(frozen=True)
class Latents:
    """Look at what a run's latents hold: styles by class, paths between images, a map, errors from latents."""

    run: RunFolder  # the run's folder, where the pictures go, and into its report
    replica: int | None = None  # which of the run's seeds; by default the first that did not stop
    count: int = 2_000  # test images encoded
    seed: int = 0  # of the choice of images
    data_dir: Path | None = None  # where raw or prepared data lie, if not where they were
    overwrite: bool = False  # also pictures latents_*.png that are not ours


@dataclasses.dataclass(frozen=True)
class Export:
    """Write weights (safetensors), a model card (JSON) and programs that need no library of ours (StableHLO)."""

    run: RunFolder  # the run's folder
    out: Path  # the folder to write to
    replica: int | None = None  # which of the run's seeds; by default the first that did not stop
    onnx: bool = False  # also the classifier as ONNX, by jax2onnx, checked by onnxruntime
    overwrite: bool = False  # also what is there and not as it was exported, such as a card with a licence


@dataclasses.dataclass(frozen=True)
class Compare:
    """Put finished runs on one page: numbers, which differences are real, curves over labels, samples, cost."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]  # folders of runs, or folders that hold runs
    out: Path = Path("compare.html")  # the page, one file that needs no network
    metrics: tuple[str, ...] = ()  # names without features and counts; by default error, agreement, fid, cas, coverage
    baseline: str | None = None  # the run that the others are paired with; by default all pairs, or the first of many
    overwrite: bool = False  # also a page that is there and not as it was written


@dataclasses.dataclass(frozen=True)
class List:
    """What there is, by name."""

    what: Annotated[Literal["methods", "datasets", "metrics"], tyro.conf.Positional]
    json: bool = False  # as a JSON list of objects


def train(arguments: Sequence[str]) -> int:
    """`ssl-gen train METHOD ...`"""
    from ssl_gen.datasets import layout
    from ssl_gen.methods import METHODS
    from ssl_gen.runs import pace
    from ssl_gen.runs import train as training
    from ssl_gen.runs.catalogue import find_method, has_steps, with_steps
    from ssl_gen.runs.options import Options
    from ssl_gen.training.cache import keep_compiled
    from ssl_gen.types import UserError

    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: ssl-gen train METHOD ...\n\nmethods: {', '.join(METHODS)}")
        print("\n`ssl-gen train METHOD --help` says what each can be set to.")
        if kinds := layout.first_look(Path()):
            quick = "--dataset folder:. --preset quick"
            print(
                f"\nThis folder holds pictures, in {listed(kinds)}. To label them, then to draw more, ten minutes each:"
            )
            print(f"ssl-gen train fixmatch {quick} --out runs/labels")
            print(f"ssl-gen train flow_matching {quick} --labeller runs/labels --out runs/drawn")
        return 0 if arguments else 2
    name, *rest = arguments
    if name.startswith("-"):
        raise UserError(f"give a method before {name}: ssl-gen train METHOD {name} ...")
    module = find_method(name)
    given = settings_file.given(rest)
    if not has_dataset(given) and (kinds := layout.first_look(Path())):
        raise UserError(
            f"this folder holds pictures, in {listed(kinds)}: --dataset folder:. learns them, --dataset digits the "
            "bundled digits"
        )
    keep_compiled()
    chosen_preset = named_preset(given)
    default = preset(name, module, chosen_preset)
    options = Options()
    if chosen_preset == QUICK:
        options = Options(labels="all", size=QUICK_SEEN if is_named(given, "encoder") else QUICK_SIZE)
    fields: list[tuple[str, Any, Any]] = [
        (
            "preset",
            Annotated[
                Literal[PRESETS],
                tyro.conf.arg(
                    help="settings to start from: the paper's; for 32 x 32 colour photographs, of supervised also "
                    "fast; quick: for photographs, all labels, and of supervised, fixmatch and flow_matching a small "
                    "net and as many steps as this machine makes in ten minutes; what is fitted in one go is quick "
                    "as it is"
                ),
            ],
            dataclasses.field(default=PRESETS[0]),
        ),
        ("options", Annotated[Options, tyro.conf.arg(name="")], dataclasses.field(default=options)),
        (
            "steps",
            Annotated[int | None, tyro.conf.arg(help="updates in all; the same as --config.steps")],
            dataclasses.field(default=None),
        ),
        (
            "dry_run",
            Annotated[bool, tyro.conf.arg(help="say what a step takes, memory and operations, and train nothing")],
            dataclasses.field(default=False),
        ),
        ("config", module.Config, dataclasses.field(default=default)),
    ]
    settings = dataclasses.make_dataclass("Settings", fields, frozen=True)
    title = str(module.__doc__).split("\n\n")[0].replace("\n", " ")
    chosen = parse_given(settings, given, f"ssl-gen train {name}", f"{title} {module.PAPER}")
    config, data = chosen.config, None
    if chosen.steps is not None:
        config = with_steps(name, config, chosen.steps)
    elif chosen_preset == QUICK and not chosen.dry_run and has_steps(config) and config.steps == default.steps:
        steps, data = pace.steps_in(pace.MINUTES, name, config, chosen.options)
        config = with_steps(name, config, steps)
    if chosen.dry_run:
        from ssl_gen.runs import forecast

        print(forecast.words(forecast.forecast(name, config, chosen.options)))
        return 0
    result = training.train(name, config, chosen.options, data)
    if result.is_main:
        report(result)
    if result.final is None:
        return signals.status() if signals.received else 143  # the signal was another process's
    return 1 if len(result.final.stopped) == len(result.final.seeds) else 0


def has_dataset(given: settings_file.Given) -> bool:
    """Is a data set named, or help or a print asked for, which read none?"""
    words = {word.partition("=")[0] for word in given.words}
    return given.printing or is_named(given, "dataset") or not words.isdisjoint(("-h", "--help"))


def is_named(given: settings_file.Given, name: str) -> bool:
    """Is an option given, among the words of a command or in its file?"""
    return name in given.values or f"--{name}" in {word.partition("=")[0] for word in given.words}


def named_preset(given: settings_file.Given) -> str:
    """The preset that the words of a command name, or else its file; without one the paper's."""
    words = [word for argument in given.words for word in argument.split("=", 1)]
    if "--preset" in words[:-1]:
        return words[words.index("--preset") + 1]
    return str(given.values.get("preset", PRESETS[0]))


def preset(name: str, module: Any, chosen: str) -> Any:
    """The settings that a method starts from: its paper's, or those that stand as NAME beside it."""
    from ssl_gen.runs.catalogue import has_steps
    from ssl_gen.types import UserError

    if chosen not in PRESETS[1:] or (chosen == QUICK and not has_steps(module.Config())):
        return module.Config()
    if not hasattr(module, chosen.upper()):
        there = [other for other in PRESETS[1:] if hasattr(module, other.upper())]
        instead = f", or give {' or '.join(there)}" if there else ""
        raise UserError(f"{name} has no preset {chosen}: leave out --preset{instead}")
    return getattr(module, chosen.upper())


def report(result: Any) -> None:
    """Print what a run came to."""
    from ssl_gen.reports import tables
    from ssl_gen.reports.records import load_run

    final = result.final
    if final is None:
        print(f"stopped; the same command goes on: {result.command}")
        return
    rows = [[name, tables.measured(name, values)] for name, values in final.metrics.items()]
    print(tables.text_table(["metric", "mean ± std (n)"], rows))
    for name, reason in final.unmeasured.items():
        print(tables.undone(name, reason))
    tested = load_run(result.folder).data.test
    if tested < FEW:
        print(f"{count(tested, 'test image')}: what compares with so few is rough")
    for stop in final.stopped:
        print(f"seed {stop.seed} stopped at step {stop.step}: {stop.metric} was {stop.value}")
    print(f"{final.seconds:.0f} s of training; report: {result.folder / 'report.html'}")


def evaluate(arguments: Sequence[str]) -> int:
    """`ssl-gen evaluate RUN ...`"""
    asked, sampler = parse_with_sampler(Evaluate, arguments, "ssl-gen evaluate")
    from ssl_gen.core import bounds
    from ssl_gen.reports import tables
    from ssl_gen.runs import evaluate as evaluating
    from ssl_gen.runs.load import find_runs

    bounds.check_value("--samples", "samples", asked.samples)
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
    from ssl_gen.core import bounds
    from ssl_gen.evaluation import proxy_classifier
    from ssl_gen.training.cache import keep_compiled

    bounds.check(asked)
    keep_compiled()
    path, name, error = proxy_classifier.train_features(**dataclasses.asdict(asked))
    print(f"{name} in {path}" + ("" if error is None else f", test error {error:.2f} %"))
    return 0


def sample(arguments: Sequence[str]) -> int:
    """`ssl-gen sample RUN ...`"""
    asked, settings = parse_with_sampler(Sample, arguments, "ssl-gen sample")
    import numpy as np

    from ssl_gen.core import bounds, names, outputs
    from ssl_gen.reports.charts import pictures
    from ssl_gen.runs.load import find_class, load
    from ssl_gen.runs.pictures import image_files, save_images

    bounds.check(asked)
    run = load(asked.run)
    classes, conditional = run.record.data.class_names, run.compiled.method.conditional
    replica = run.trained_replica(asked.replica)
    every = list(range(len(classes))) if conditional else [0]
    chosen = every if asked.label is None else [find_class(asked.label, classes, conditional)]
    labels = np.tile(chosen, asked.count)
    path = asked.out or run.folder / "grid.png"
    single = path.suffix.lower() == ".png"
    stems = names.file_names(classes) if conditional else ["sample"] * len(classes)
    files = [path] if single else image_files(path, [stems[k] for k in labels])
    outputs.check_free(files, asked.overwrite, pictures.is_ours if asked.out is None else lambda file: False)
    images = run.draw(labels, asked.seed, replica, run.sampler(**settings))
    mask = run.record.masks[replica]
    text = {"method": run.record.method, "seed": str(run.record.seeds[replica])}
    text |= {"mask": mask.name, "mask_sha256": mask.sha256}
    text |= {"sampler": ", ".join(f"{name} {value}" for name, value in settings.items())} if settings else {}
    if single:
        columns = len(chosen) if len(chosen) > 1 else max(1, round(asked.count**0.5))
        rows = -(-len(labels) // columns)
        empty = np.full((rows * columns - len(labels), *images.shape[1:]), pictures.PAPER, np.uint8)
        grid = np.concatenate([images, empty]).reshape(rows, columns, *images.shape[1:])
        titles = [classes[k] for k in chosen] if len(chosen) > 1 and conditional else None
        with outputs.replacing(path) as target:
            pictures.save_grid(target, grid, titles, text=text)
    else:
        save_images(files, images, [text | ({"class": classes[k]} if conditional else {}) for k in labels])
    what = count(len(images), "image")
    if conditional:
        what += f" of class {classes[chosen[0]]}" if len(chosen) == 1 else f" of {len(chosen)} classes in turn"
    print(f"{what}{drawn_by(run, replica)}: {path if single else f'{path}, {files[0].name} to {files[-1].name}'}")
    return 0


def drawn_by(run: Any, replica: int) -> str:
    """What must be known of images: of which seed they are where there are several, and whether it is trained."""
    words = f" by seed {run.record.seeds[replica]}" if len(run.record.seeds) > 1 else ""
    return words if run.final else f"{words} at step {run.step} of {run.record.steps}, for the run is not finished"


def latents(arguments: Sequence[str]) -> int:
    """`ssl-gen latents RUN ...`"""
    asked = parse(Latents, arguments, "ssl-gen latents")
    from ssl_gen.reports import tables
    from ssl_gen.runs.latents import look

    found = look(asked.run, asked.replica, asked.count, asked.seed, asked.data_dir, asked.overwrite)
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


def export(arguments: Sequence[str]) -> int:
    """`ssl-gen export RUN --out DIR`"""
    asked, settings = parse_with_sampler(Export, arguments, "ssl-gen export")
    from ssl_gen.runs import export as exporting

    card = exporting.save(asked.run, asked.out, asked.replica, asked.overwrite, asked.onnx, **settings)
    for file in (exporting.WEIGHTS, *(program.file for program in card.programs.values()), exporting.CARD):
        print(asked.out / file)
    if "onnx" in card.programs:
        print(f"{exporting.program_file('onnx')} gives {card.programs['onnx'].gives}")
    if card.licence == exporting.UNKNOWN:
        print(f"the licence of the data is not known: write it into {asked.out / exporting.CARD}")
    return 0


def compare(arguments: Sequence[str]) -> int:
    """`ssl-gen compare RUN RUN ...`"""
    asked = parse(Compare, arguments, "ssl-gen compare")
    from ssl_gen.core import outputs
    from ssl_gen.reports import tables
    from ssl_gen.reports.compare import page
    from ssl_gen.reports.compare.columns import table
    from ssl_gen.reports.compare.entries import chosen, names_of, read
    from ssl_gen.runs.load import find_runs

    outputs.check_free([asked.out], asked.overwrite)
    folders = find_runs(asked.runs)
    entries = [read(*each) for each in zip(folders, names_of(folders), strict=True)]
    rendered = page.render(entries, asked.metrics, asked.baseline)
    print(tables.text_table(*table(entries, chosen(entries, asked.metrics))))
    for entry in entries:
        for stop in entry.final.stopped:
            print(f"{entry.name}: seed {stop.seed} stopped at step {stop.step} and has no number")
    with outputs.replacing(asked.out) as target:
        target.write_text(rendered, encoding="utf-8")
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
