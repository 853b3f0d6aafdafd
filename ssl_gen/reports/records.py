"""What a run says of itself, written and read in this module alone: run.json, final.json, latents.json.

`RunRecord` stands before training starts, `FinalRecord` when it ends. Both carry a format number: a file of another
format is refused in one line, never guessed at. So is one whose entries do not fit each other, or its hash.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ssl_gen.core.files import SEAL, check_seal, read_json, write_json
from ssl_gen.core.plain import from_plain, shown, to_plain
from ssl_gen.core.wording import own_kind
from ssl_gen.metrics.statistics import Summary
from ssl_gen.types import ImageSpec, Precision, UserError

FORMAT = 2  # of run.json and final.json; 1: version 0.1, whose checkpoints hold other states
# in the place of a method: an encoder that is a network of features, its config the architecture
EXTRACTOR = "extractor"
SAME: tuple[str, ...] = (
    "method",
    "config",
    "dataset",
    "data",
    "labels",
    "mask",
    "masks",
    "seeds",
    "steps",
    "every",
)  # of one run
SAME += ("encoder", "labeller", "products")
Record = TypeVar("Record")


@dataclasses.dataclass(frozen=True)
class DataRecord:
    """The images of a run."""

    height: int
    width: int
    channels: int
    classes: int
    class_names: list[str]
    train: int  # images
    test: int
    validation: int
    skipped: list[str]  # files left out because they could not be read
    sha256: str  # over class names, images and labels

    def __post_init__(self) -> None:
        """Raise ValueError for what no data set is."""
        if min(self.height, self.width, self.channels, self.classes) < 1:
            raise ValueError(f"images of {self.height} x {self.width} x {self.channels} in {self.classes} classes")
        if len(self.class_names) != self.classes:
            raise ValueError(f"{len(self.class_names)} class names for {self.classes} classes")

    @property
    def spec(self) -> ImageSpec:
        return ImageSpec(self.height, self.width, self.channels, self.classes)


@dataclasses.dataclass(frozen=True)
class ReadRecord:
    """What was read, as it was said before training started; of a user's own files, what they held and what became."""

    line: str
    warnings: list[str]
    labelled: dict[str, int]  # class -> training images with that label
    unlabelled: int  # training images without one
    left_out: dict[str, list[str]]  # why -> files
    sizes: dict[str, int]  # "640 x 480" (width x height) -> files
    modes: dict[str, int]  # "16-bit grey" -> files
    changes: dict[str, int]  # "resized to 32 x 32" -> images


@dataclasses.dataclass(frozen=True)
class MaskRecord:
    """Which labels one seed saw."""

    name: str  # digits@100-s3, where 3 is the mask's own seed
    sha256: str  # over data and visible labels
    visible: int  # labels
    pool: int  # unlabelled images
    rows: list[int] | None = None  # of the labels, where an earlier run chose them


@dataclasses.dataclass(frozen=True)
class PhaseRecord:
    """A part of training."""

    name: str
    steps: int


@dataclasses.dataclass(frozen=True)
class EncoderRecord:
    """What a method saw instead of pixels: the latents of a run, or the features of an extractor."""

    method: str  # or EXTRACTOR
    config: dict[str, Any]
    steps: int
    name: str = ""  # of an extractor: kind and hash of its weights
    products: Precision = "float32"  # of the run


@dataclasses.dataclass(frozen=True)
class LabellerRecord:
    """The run whose classifier guessed labels that a method learnt, and which of its guesses."""

    method: str
    config: dict[str, Any]
    steps: int
    sha256: str  # over its weights
    guesses: str  # favourite or drawn, see Options
    confident: float
    height: int | None = None  # pixels, of the images that it saw, where the run itself sees them smaller or larger


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """run.json: what was asked for, by whom, of what."""

    format: int
    method: str
    family: str
    paper: str
    config: dict[str, Any]  # the method's Config
    sampler: dict[str, Any]  # how samples were drawn at the end of the run
    dataset: str
    data: DataRecord
    labels: int | str  # visible, in all, or "all"
    mask: dict[str, Any]  # the Scheme
    masks: list[MaskRecord]  # one a seed; several seeds may train on one mask
    seeds: list[int]  # of initialisation, batches, noise and samples
    options: dict[str, Any]  # the Options
    steps: int
    phases: list[PhaseRecord]
    every: dict[str, int]  # steps between lines of the log, evaluations, checkpoints
    versions: dict[str, str]
    commit: str | None
    device: str
    command: str  # makes, or goes on with, this run
    created: str  # ISO 8601, UTC
    encoder: EncoderRecord | None = None
    labeller: LabellerRecord | None = None
    precision: str | None = None  # of matrix products and convolutions, in words; older records do not say it
    products: Precision = "float32"  # what they are cast to
    read: ReadRecord | None = None  # what was read of the data

    @property
    def spec(self) -> ImageSpec:
        return spec_of(self.data, self.masks)

    def check(self) -> None:
        """Raise ValueError where seeds and masks are not one for one."""
        if not self.seeds or len(self.masks) != len(self.seeds):
            raise ValueError(f"{len(self.masks)} masks for {len(self.seeds)} seeds")


@dataclasses.dataclass(frozen=True)
class PartRecord:
    """A part of a run, up to the next that another machine, another commit or other packages trained."""

    step: int  # after which it went on; the last of all where it did the rest alone, such as measuring
    device: str
    commit: str | None
    precision: str | None = None
    versions: dict[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Stop:
    """A seed that stopped for a number that is not finite."""

    seed: int
    step: int
    metric: str
    value: str


@dataclasses.dataclass(frozen=True)
class PublishedNumber:
    """A number that the authors of a method, or others, printed."""

    value: str  # as printed, "0.91 ± 0.58"
    source: str
    verified: bool = True  # it was read there; False: from memory, marked wherever it is shown
    metric: str = "error"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinalRecord:
    """final.json: what a run came to. What does not apply is None here and absent there, never zero."""

    format: int = FORMAT
    method: str
    dataset: str
    labels: int | str
    masks: list[str]  # SHA-256, one a seed
    seeds: list[int]
    steps: int
    seconds: float  # of training, all seeds
    pflop: float | None = None  # 10^15 operations of training, a seed; older records do not say it
    images_per_second: float | None = None  # that training showed all seeds; older records do not say it
    share_of_peak: float | None = None  # pflop of all seeds over seconds, over what the chips can do; None: not known
    metrics: dict[str, Summary]
    unmeasured: dict[str, str] = dataclasses.field(default_factory=dict)  # metric -> why
    stopped: list[Stop] = dataclasses.field(default_factory=list)
    averaged: list[str] = dataclasses.field(
        default_factory=list
    )  # players that were measured at the EMA of their params
    device: str  # of a run in parts each of them, "; " between, as precision and commit
    precision: str | None = None  # of matrix products and convolutions in training; older records do not say it
    commit: str | None
    parts: list[PartRecord] | None = None  # where another machine, commit or version went on
    command: str = ""
    confusion: list[list[int]] | None = None  # true class by predicted class, summed over the seeds that did not stop
    per_class_error: dict[str, Summary] | None = None
    oracle: dict[str, Summary] | None = None  # chosen by looking at the test set: no result
    temperature: list[float | None] | None = None  # one a seed
    published: list[PublishedNumber] | None = None  # of a row of an experiment
    setting: str | None = None  # of a row of an experiment: the fingerprint of what its numbers depend on
    stale: str | None = None  # of a row of an experiment: why the code of today comes to another number
    log: str | None = None  # SHA-256 of metrics.jsonl when the run ended; None of rows and of other people's runs

    def check(self) -> None:
        """Raise ValueError where something that is one a seed has another length, or a number is none."""
        summaries = [*self.metrics.values(), *(self.oracle or {}).values()]
        lists: list[Sequence[Any]] = [self.masks, *(each["per_seed"] for each in summaries)]
        lists += [] if self.temperature is None else [self.temperature]
        wrong = next((each for each in lists if len(each) != len(self.seeds)), None)
        if wrong is not None:
            raise ValueError(f"{len(wrong)} values for {len(self.seeds)} seeds")
        stranger = next((stop.seed for stop in self.stopped if stop.seed not in self.seeds), None)
        if stranger is not None:
            raise ValueError(f"seed {stranger} stopped and is none of the run's")
        if not all(value is None or math.isfinite(value) for each in summaries for value in each["per_seed"]):
            raise ValueError("a number is not finite")


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture in a run folder."""

    file: str
    caption: str


@dataclasses.dataclass(frozen=True)
class LatentsRecord:
    """latents.json: what `ssl-gen latents` found."""

    split: str  # of the images encoded
    images: int
    latents: int  # their width
    replica: int
    seed: int
    pictures: list[Picture]
    errors: dict[str, dict[str, float]]  # classifier -> percent wrong from latents, from pixels
    left_out: list[str]


def spec_of(data: DataRecord, masks: Sequence[MaskRecord]) -> ImageSpec:
    """What the method of a run was made for; every seed's mask has as many labels and images."""
    return data.spec._replace(labelled=masks[0].visible, unlabelled=masks[0].pool, images=data.train)


def to_json(record: Any) -> dict[str, Any]:
    """A record as its JSON file holds it; what is None by default is left out."""
    absent = {field.name for field in dataclasses.fields(record) if field.default is None}
    plain = to_plain(record)
    return {name: value for name, value in plain.items() if value is not None or name not in absent}


def write(path: Path, record: Any) -> None:
    """Write a record as JSON, whole or not at all."""
    write_json(path, to_json(record))


def load(path: Path, kind: type[Record]) -> Record:
    """A record from its JSON file. Raises UserError where it is missing, damaged, or of another format."""
    values = read_json(path)
    formatted = "format" in {field.name for field in dataclasses.fields(typing.cast(Any, kind))}
    if formatted and values.get("format", 1) != FORMAT:
        raise UserError(
            f"{path} has format {shown(values.get('format', 1))}, this ssl_gen reads {FORMAT}: "
            "use the version that wrote it, or train again with another --out"
        )
    try:
        record = from_plain(kind, {name: value for name, value in values.items() if name != SEAL})
        if isinstance(record, RunRecord | FinalRecord):
            record.check()
    except ValueError as error:
        said = " ".join(str(error).split())
        raise UserError(f"{path} is no {kind.__name__} of this ssl_gen ({said}): restore it or train again") from error
    check_seal(path, values)
    return record


def load_run(folder: Path) -> RunRecord:
    """run.json of a run folder; raises UserError as `load`."""
    return load(folder / "run.json", RunRecord)


def load_final(folder: Path) -> FinalRecord | None:
    """final.json of a run folder, None where it has none yet; raises UserError as `load`."""
    path = folder / "final.json"
    return load(path, FinalRecord) if path.exists() else None


def load_both(folder: Path) -> tuple[RunRecord, FinalRecord | None]:
    """run.json and final.json of a run folder; raises UserError as `load`, and where they are not of one run."""
    record, final = load_run(folder), load_final(folder)
    if final is None:
        return record, None
    masks = [mask.sha256 for mask in record.masks]
    if (final.method, final.seeds, final.masks) != (record.method, record.seeds, masks):
        raise UserError(
            f"{folder / 'final.json'} is of another run than run.json beside it: restore the one that belongs"
        )
    classes = record.data.classes
    table = final.confusion
    if table is not None and (len(table) != classes or any(len(row) != classes for row in table)):
        raise UserError(f"{folder / 'final.json'} has a confusion matrix of other than {classes} classes: restore it")
    return record, final


def identity(record: RunRecord) -> dict[str, Any]:
    """What must be the same wherever a run goes on, as JSON holds it: it stands in the note of every checkpoint too.

    A setting that came after a record was written is absent there: None, unless it changes something.
    """
    plain = without_none(to_plain(record))
    return {name: plain[name] for name in SAME if name in plain}


def another(found: Mapping[str, Any], record: RunRecord) -> tuple[str, Any, Any] | None:
    """The first thing in which a run, by its `identity`, is not that of `record`: its path and both values; or None."""
    wanted = identity(record)
    for name in SAME:
        if name == "dataset" and own_kind(record.dataset) == own_kind(str(found.get(name))) != "":
            continue  # wherever they lie now: `data` holds the hash of their pixels and labels
        if found.get(name) != wanted.get(name):
            return difference(name, found.get(name), wanted.get(name))
    return None


def check_identity(folder: Path, found: Mapping[str, Any], record: RunRecord) -> None:
    """Raise UserError, naming the first thing that differs, where a run in `folder`, by its `identity`, is another."""
    if differs := another(found, record):
        what, old, new = differs
        raise UserError(f"{folder} holds a run with {what} {old}, this one has {new}; choose another --out")


def check_weights(folder: Path, note: Mapping[str, Any], record: RunRecord) -> None:
    """Raise UserError where run.json of a folder is not of the run whose checkpoint, by its note, lies beside it.

    Those of earlier versions do not say of which they are.
    """
    if "masks" in note and (differs := another(note, record)):
        what, old, new = differs
        raise UserError(
            f"{folder / 'run.json'} is of another run than the checkpoints beside it, by {what} ({new}, theirs {old}): "
            "restore the one that belongs"
        )


def agree(folder: Path, record: RunRecord) -> None:
    """Write run.json, or check that the run already there is this one; UserError names the first thing that differs."""
    path = folder / "run.json"
    if path.exists() and is_begun(folder):
        check_identity(folder, identity(load_run(folder)), record)
    else:
        write(path, record)


def is_begun(folder: Path) -> bool:
    """Has a run logged or kept anything? One that was refused after its record was written did not."""
    log, checkpoints = folder / "metrics.jsonl", folder / "checkpoints"
    kept = checkpoints.is_dir() and any(checkpoints.iterdir())
    return kept or (folder / "final.json").exists() or (log.exists() and log.stat().st_size > 0)


def check_note(folder: Path, note: Mapping[str, Any] | None, record: RunRecord) -> None:
    """Raise UserError where a checkpoint of a run folder, by its note, is of another run; None: there is none.

    Those of earlier versions do not say of which they are: run.json does, and where it is lost nothing can.
    """
    if note is None:
        return
    if "masks" in note:
        check_identity(folder, note, record)
    elif not (folder / "run.json").exists():
        raise UserError(
            f"{folder} lost its run.json, and its checkpoints do not say of which run they are: "
            "restore it or choose another --out"
        )


def part(step: int, record: RunRecord) -> PartRecord:
    """What trains from `step` on."""
    return PartRecord(step, record.device, record.commit, record.precision, record.versions)


def parts(note: Mapping[str, Any] | None, step: int, begun: RunRecord, record: RunRecord) -> list[PartRecord]:
    """The parts of a run that goes on as `record` from a checkpoint, by its note; None and step 0 where it begins.

    begun: run.json as it stands, for the checkpoints of earlier versions, which do not say of whom they are.
    """
    former = [part(0, begun)]
    if note and "parts" in note:
        former = [from_plain(PartRecord, each) for each in note["parts"]]
    kept = [each for each in former if each.step < step]
    latest = part(step, record)
    goes_on = bool(kept) and dataclasses.replace(latest, step=kept[-1].step) == kept[-1]
    return kept if goes_on else [*kept, latest]


def in_parts(final: FinalRecord, made: Sequence[PartRecord]) -> FinalRecord:
    """A FinalRecord that names each machine, precision and commit of a run in several parts, and itself with one.

    What share of its peak a chip did is not known of two chips.
    """
    if len(made) < 2:
        return final
    found = zip(*((part.device, part.commit, part.precision) for part in made), strict=True)
    devices, commits, precisions = ([each or "not known" for each in dict.fromkeys(column)] for column in found)
    alike = len(devices) == len(precisions) == 1
    return dataclasses.replace(
        final,
        device="; ".join(devices),
        commit="; ".join(commits),
        precision="; ".join(precisions),
        parts=list(made),
        share_of_peak=final.share_of_peak if alike else None,
    )


def common(record: RunRecord) -> dict[str, Any]:
    """What must be the same in all processes of a run: what its numbers depend on, and how they divide the work."""
    plain = to_plain(record)
    names = ("replicas", "data_parallel", "shard_params", "store", "accumulate", "remat")
    placing = {name: record.options[name] for name in names}
    return {name: plain[name] for name in SAME} | placing | {"versions": record.versions}


def check_alike(records: Sequence[dict[str, Any]]) -> None:
    """Raise UserError where the processes of a run, one `common` each, were not asked for the same."""
    for index, record in enumerate(records):
        for name in records[0]:
            if record[name] != records[0][name]:
                what, old, new = difference(name, records[0][name], record[name])
                raise UserError(f"process 0 has {what} {old}, process {index} has {new}: start all with one command")


def without_none(value: Any) -> Any:
    """JSON's values without the entries of objects that are None."""
    if isinstance(value, dict):
        return {key: without_none(each) for key, each in value.items() if each is not None}
    return [without_none(each) for each in value] if isinstance(value, list) else value


def difference(name: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """The innermost entry in which two records differ: its path and both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        key = next(key for key in [*new, *old] if old.get(key) != new.get(key))
        return difference(f"{name}.{key}", old.get(key), new.get(key))
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        index = next(index for index in range(len(new)) if old[index] != new[index])
        return difference(f"{name}[{index}]", old[index], new[index])
    return name, old, new
