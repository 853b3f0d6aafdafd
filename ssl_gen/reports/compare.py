"""Several finished runs on one page: what each reached, which differences are real, what they drew and what they cost.

Runs are paired mask by mask: a difference is that of two runs that saw the same visible labels of the same images, and
it is called real where the 95 % t interval of its mean over the masks excludes 0.
"""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ssl_gen.metrics import statistics
from ssl_gen.reports import drawing, efficiency, page, pictures, records, sections, tables
from ssl_gen.types import UserError

USUAL = ("error", "agreement", "agreement_svc", "fid", "cas", "coverage")  # shown of those that any run has
PART = 2  # grids are shown at half their size: a whole part, so that the mean of pixels is again a pixel
ALL_PAIRS = 8  # of more runs, each is paired only with the first that shares its masks; ours


class Entry(NamedTuple):
    """One finished run."""

    name: str  # METHOD@LABELS in label-efficiency experiments
    final: dict[str, Any]  # final.json; may hold `published`, a list of published numbers
    samples: Path | None = None  # samples.png
    data: str | None = None  # SHA-256 of the images, where it is known

    @property
    def method(self) -> str:
        """What its curve is called."""
        return self.name.rpartition("@")[0] or self.final["method"]


def read(folder: Path, name: str) -> Entry:
    """A finished run from its folder; raises UserError as `records.finished`."""
    run = records.read(folder)
    return Entry(name, records.finished(folder), run.samples, run.record["data"]["sha256"])


def names_of(folders: Sequence[Path]) -> list[str]:
    """One name a folder: its own, with as many of those above it as make it different from all others."""
    parts = [folder.resolve().parts for folder in folders]
    depth = 1
    while len({each[-depth:] for each in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(each[-depth:]) for each in parts]


def chosen(entries: Sequence[Entry], wanted: Sequence[str] = ()) -> list[str]:
    """The full names of the wanted metrics, or of the usual ones that there are; UserError for one that no run has."""
    measured = list(dict.fromkeys(name for entry in entries for name in entry.final["metrics"]))
    found = []
    for metric in wanted or USUAL:
        full = tables.matching(metric, measured)
        if wanted and not full:
            raise UserError(f"no run has {metric}: measure it with `ssl-gen evaluate RUN --metrics {metric}`")
        found += full
    return list(dict.fromkeys(found))


def paired(a: Entry, b: Entry, metric: str) -> dict[str, Any] | None:
    """The difference a - b of a metric over the masks that both have, as `statistics.paired`; None without one.

    A mask is shared where its hash, over images and visible labels, and its seed are the same in both.
    """
    if metric not in a.final["metrics"] or metric not in b.final["metrics"]:
        return None
    of_a, of_b = (
        dict(zip(zip(each["seeds"], each["masks"], strict=True), each["metrics"][metric]["per_seed"], strict=True))
        for each in (a.final, b.final)
    )
    both = [key for key in of_a if key in of_b]
    result = statistics.paired([of_a[key] for key in both], [of_b[key] for key in both])
    return result if result["n"] else None


def share_masks(a: Entry, b: Entry) -> bool:
    """Did both see the same visible labels with any seed?"""
    keys = [set(zip(each.final["seeds"], each.final["masks"], strict=True)) for each in (a, b)]
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


def verdict(result: dict[str, Any]) -> str:
    """Is a difference real? In words."""
    if result["ci95"] is None:
        return "one mask: cannot be told"
    low, high = result["ci95"]
    if low <= 0 <= high:
        return "not shown: the interval holds 0"
    return "real: higher" if low > 0 else "real: lower"


def table(entries: Sequence[Entry], metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Headers and rows: what each run reached, by the metrics' full names."""
    # The numbers come early: on a narrow page they are seen first, beside the name.
    last = ["method", "dataset"] if mixed(entries) else ["method"]
    return ["run", "labels", *map(_headed, metrics), *last], [
        [entry.name, str(entry.final["labels"])]
        + [tables.measured(name, entry.final["metrics"].get(name)) for name in metrics]
        + [entry.final[key] for key in last]
        for entry in entries
    ]


def mixed(entries: Sequence[Entry]) -> bool:
    """Are the runs of several data sets?"""
    return len({entry.final["dataset"] for entry in entries}) > 1


def results(entries: Sequence[Entry], metrics: Sequence[str]) -> str:
    """What each run reached, and what the numbers are."""
    told = "Mean ± standard deviation (number) over masks and seeds; a dash is a number that does not exist."
    told += "" if mixed(entries) else f" All runs are on {html.escape(entries[0].final['dataset'])}."
    return f'<h2>Results</h2>{tables.html_table(*table(entries, metrics))}<p class="soft">{told}</p>'


def _headed(metric: str) -> str:
    return f"{metric} (%)" if metric == "error" or metric.startswith("error_") else metric


def differences(entries: Sequence[Entry], metrics: Sequence[str], baseline: str | None) -> str:
    """Which differences are real, a table a metric; among the runs that have it where the baseline has not."""
    pairs(entries, baseline)  # raises for a baseline that is no run
    parts, count = [], 0
    for metric in metrics:
        having = [entry for entry in entries if metric in entry.final["metrics"]]
        known = any(baseline in (entry.name, entry.method) for entry in having)
        rows = []
        for a, b in pairs(having, baseline if known else None):
            result = paired(a, b, metric)
            if result is not None:
                places = tables.decimals(metric, result["difference"])
                interval = result["ci95"] and " to ".join(f"{end:+.{places}f}" for end in result["ci95"])
                difference = f"{result['difference']:+.{places}f}"
                rows.append([a.name, b.name, difference, interval, str(result["n"]), verdict(result)])
        if rows:
            count += len(rows)
            headers = ["run", "against", "difference", "95 % interval", "masks", "is it real?"]
            parts.append(f"<h3>{html.escape(_headed(metric))}</h3>{tables.html_table(headers, rows)}")
    if not parts:
        return "<h2>Differences</h2><p>No two of these runs saw the same labels: there is nothing to pair.</p>"
    told = "Run minus the other, mask by mask, over the masks that both saw; the interval is Student's t of the mean. "
    told += f"{sections.count(count, 'comparison')}: where nothing differs, about one in twenty still looks real."
    return f'<h2>Differences</h2><p class="soft">{told}</p>{"".join(parts)}'


def points(entries: Sequence[Entry]) -> list[efficiency.Point]:
    """The runs as points of the curves."""
    return [efficiency.Point(entry.method, entry.final["labels"], entry.final) for entry in entries]


def figures(entries: Sequence[Entry], metrics: Sequence[str]) -> list[efficiency.Figure]:
    """One figure a metric, where the runs make curves: of one data set, a method with several numbers of labels.

    There are none where two runs of a method have as many labels: they differ in something else.
    """
    known = points(entries)
    alike = len({(point.name, point.labels) for point in known}) < len(known)
    if alike or mixed(entries) or not efficiency.has_curves(known):
        return []
    return [figure for figure in (efficiency.figure(known, metric) for metric in metrics) if figure is not None]


def curves(entries: Sequence[Entry], metrics: Sequence[str]) -> str:
    """The metrics against the number of visible labels."""
    drawn = figures(entries, metrics)
    if not drawn:
        return ""
    parts = [
        f"<figure>{drawing.svg(each.shapes, each.size, efficiency.described(each))}"
        f"<figcaption>{html.escape(each.metric)}</figcaption></figure>"
        for each in drawn
    ]
    told = "Marker: mean over masks. Band: lowest to highest mask. Horizontal: runs with all labels. "
    told += "The number of labels is on a logarithmic axis."
    return f'<h2>Label efficiency</h2><p class="soft">{told}</p><div class="figures">{"".join(parts)}</div>'


def published(entries: Sequence[Entry]) -> str:
    """Published numbers beside ours."""
    rows = []
    for entry in entries:
        if "published" in entry.final:
            for number in entry.final["published"]:
                ours = tables.measured(number["metric"], entry.final["metrics"].get(number["metric"]))
                checked = "read in the source" if number["verified"] else "UNVERIFIED: from memory"
                rows.append([entry.name, number["metric"], ours, number["value"], number["source"], checked])
    if not rows:
        return ""
    headers = ["run", "metric", "ours", "published", "source", "checked?"]
    told = "Published numbers come from longer training, other networks and often the best of the test errors."
    return f'<h2>Beside published numbers</h2>{tables.html_table(headers, rows)}<p class="soft">{told}</p>'


def samples(entries: Sequence[Entry]) -> str:
    """What the generators drew: a row a method, a column a number of labels."""
    drawn = [entry for entry in entries if entry.samples is not None]
    if not drawn:
        return ""
    texts = [pictures.read_text(entry.samples) for entry in drawn if entry.samples is not None]
    order = sorted({entry.final["labels"] for entry in drawn}, key=lambda n: float("inf") if n == "all" else n)
    cells: dict[str, dict[int | str, list[str]]] = {}
    for entry in drawn:
        caption = f"{entry.name}, {entry.final['labels']} visible labels"
        row = cells.setdefault(entry.method, {})
        row.setdefault(entry.final["labels"], []).append(sections.figure(entry.samples, caption, PART))
    head = "".join(f'<th scope="col">{labels} labels</th>' for labels in order)
    body = []
    for method, row in cells.items():
        inner = "".join(f"<td>{''.join(row[n]) if n in row else tables.MISSING}</td>" for n in order)
        body.append(f'<tr><th scope="row">{html.escape(method)}</th>{inner}</tr>')
    grids = f'<table class="grids"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    told = "By the first seed that did not stop; one class a column where the method is told the class"
    columns = {text[pictures.COLUMNS] for text in texts if pictures.COLUMNS in text}
    told += f": {html.escape(', '.join(json.loads(columns.pop())))}." if len(columns) == 1 else "."
    return f'<h2>Samples</h2><p class="soft">{told}</p><div class="scroll">{grids}</div>'


def cost(entries: Sequence[Entry]) -> str:
    """What each run took, and all of them."""
    rows = []
    for entry in entries:
        final, commit = entry.final, entry.final["commit"]
        hours = f"{final['seconds'] / 3600:.3g}"
        rows.append([entry.name, str(len(final["seeds"])), f"{final['steps']:,}", hours, final["device"], commit])
    hours = sum(entry.final["seconds"] for entry in entries) / 3600
    told = f"Hours are of training, of all seeds of a run; {hours:.3g} in all."
    drawn = tables.html_table(["run", "seeds", "steps", "hours", "device", "commit"], rows)
    return f'<h2>Cost</h2>{drawn}<p class="soft">{told}</p>'


def warnings(entries: Sequence[Entry]) -> str:
    """What a reader must know before any number: how the runs are not alike, and seeds that stopped."""
    parts = []
    known: list[tuple[str, Callable[[Entry], Any]]] = [
        ("data sets", lambda entry: entry.final["dataset"]),
        ("commits", lambda entry: entry.final["commit"]),
        ("numbers of seeds", lambda entry: len(entry.final["seeds"])),
    ]
    for what, of in known:
        values = sorted({str(of(entry)) for entry in entries})
        if len(values) > 1:
            parts.append(f"These runs are of {len(values)} {what}: {', '.join(values)}.")
    for dataset in dict.fromkeys(entry.final["dataset"] for entry in entries):
        hashes = {entry.data for entry in entries if entry.final["dataset"] == dataset and entry.data is not None}
        if len(hashes) > 1:
            parts.append(f"The images called {dataset} are not the same in all runs: their hashes differ.")
    for entry in entries:
        stops = list(entry.final["stopped"]) if "stopped" in entry.final else []
        for stop in stops:
            parts.append(f"{entry.name}: seed {stop['seed']} stopped at step {stop['step']:,}; it counts in no number.")
    return "".join(f'<div class="warning">{html.escape(part)}</div>' for part in parts)


def render(
    entries: Sequence[Entry], metrics: Sequence[str] = (), baseline: str | None = None, title: str | None = None
) -> str:
    """Finished runs -> the whole page as HTML.

    metrics: names without features and counts, by default the usual ones; baseline: as for `pairs`. Raises UserError.
    """
    full = chosen(entries, metrics)
    heading = title if title is not None else f"{sections.count(len(entries), 'run')} compared"
    parts = [warnings(entries), f"<h1>{html.escape(heading)}</h1>", results(entries, full)]
    parts += [curves(entries, full), differences(entries, full, baseline), published(entries), samples(entries)]
    return page.document(heading, [*parts, cost(entries)])


def draw(entries: Sequence[Entry], metrics: Sequence[str], folder: Path, name: str) -> list[Path]:
    """Write the figures as FOLDER/NAME_METRIC.svg and .png, and return their paths; none where there is no curve."""
    written = []
    for figure in figures(entries, metrics):
        path = folder / f"{name}_{efficiency.short(figure.metric)}.svg"
        path.write_text(drawing.svg(figure.shapes, figure.size, efficiency.described(figure), alone=True) + "\n")
        drawing.png(figure.shapes, figure.size).save(path.with_suffix(".png"), optimize=True)
        written += [path, path.with_suffix(".png")]
    return written
