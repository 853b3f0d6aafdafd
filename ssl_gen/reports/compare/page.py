"""Finished runs on one page: what each reached, which differences are real, what they drew and what they cost."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ssl_gen.core.wording import count
from ssl_gen.metrics.statistics import Paired
from ssl_gen.reports import tables
from ssl_gen.reports.charts import drawing, efficiency, pictures
from ssl_gen.reports.compare.columns import table
from ssl_gen.reports.compare.entries import Entry, chosen, mixed
from ssl_gen.reports.compare.pairs import masks_of, paired, pairs, together, verdict
from ssl_gen.reports.document import document, figure

PART = 2  # grids are shown at half their size: a whole part, so that the mean of pixels is again a pixel


def results(entries: Sequence[Entry], metrics: Sequence[str]) -> str:
    """What each run reached, and what the numbers are."""
    told = "Mean ± standard deviation (number) over masks and seeds; a dash is a number that does not exist."
    told += "" if mixed(entries) else f" All runs are on {html.escape(entries[0].final.dataset)}."
    return f'<h2>Results</h2>{tables.html_table(*table(entries, metrics))}<p class="soft">{told}</p>'


def differences(entries: Sequence[Entry], metrics: Sequence[str], baseline: str | None) -> str:
    """Which differences are real, a table a metric; among the runs that have it where the baseline has not."""
    pairs(entries, baseline)  # raises for a baseline that is no run
    parts: list[str] = []
    compared: list[Paired] = []
    for metric in metrics:
        having = [entry for entry in entries if metric in entry.final.metrics]
        known = any(baseline in (entry.name, entry.method) for entry in having)
        rows = []
        for a, b in pairs(having, baseline if known else None):
            result = paired(a, b, metric)
            if result is not None and result["difference"] is not None:
                compared.append(result)
                places = tables.decimals(metric, result["difference"])
                interval = result["ci95"] and " to ".join(f"{end:+.{places}f}" for end in result["ci95"])
                difference = f"{result['difference']:+.{places}f}"
                counts = [str(result["n"]), str(masks_of(a, b, metric))]
                rows.append([a.name, b.name, difference, interval, *counts, verdict(result, metric)])
        if rows:
            headers = ["run", "against", "difference", "95 % interval", "pairs", "masks", "is it real?"]
            parts.append(f"<h3>{html.escape(tables.headed(metric))}</h3>{tables.html_table(headers, rows)}")
    if not parts:
        return "<h2>Differences</h2><p>No two of these runs saw the same labels: there is nothing to pair.</p>"
    told = "Run minus the other, mask by mask and seed by seed, over those that both have; the interval is Student's t "
    told += "of the mean, and of one mask alone where that is the number of masks. "
    told += together(compared)
    return f'<h2>Differences</h2><p class="soft">{told}</p>{"".join(parts)}'


def points(entries: Sequence[Entry]) -> list[efficiency.Point]:
    """The runs as points of the curves."""
    return [efficiency.Point(entry.method, entry.final.labels, entry.final.metrics) for entry in entries]


def figures(entries: Sequence[Entry], metrics: Sequence[str]) -> list[efficiency.Figure]:
    """One figure a metric, where the runs make curves: of one data set, a method with several numbers of labels.

    There are none where two runs of a method have as many labels: they differ in something else.
    """
    known = points(entries)
    alike = len({(point.name, point.labels) for point in known}) < len(known)
    if alike or mixed(entries) or not efficiency.has_curves(known):
        return []
    drawn = (efficiency.figure(known, metric) for metric in metrics)
    return [each for each in drawn if each is not None]


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
        for number in entry.final.published or []:
            ours = tables.measured(number.metric, entry.final.metrics.get(number.metric))
            checked = "read in the source" if number.verified else "UNVERIFIED: from memory"
            rows.append([entry.name, number.metric, ours, number.value, number.source, checked])
    if not rows:
        return ""
    headers = ["run", "metric", "ours", "published", "source", "checked?"]
    told = "Published numbers come from longer training, other networks and often the best of the test errors."
    return f'<h2>Beside published numbers</h2>{tables.html_table(headers, rows)}<p class="soft">{told}</p>'


def samples(entries: Sequence[Entry]) -> str:
    """What the generators drew: a row a method, a column a number of labels."""
    drawn = [(entry, entry.samples) for entry in entries if entry.samples is not None]
    if not drawn:
        return ""
    texts = [pictures.read_text(path) for _, path in drawn]
    order = sorted({entry.final.labels for entry, _ in drawn}, key=lambda n: float("inf") if n == "all" else float(n))
    cells: dict[str, dict[int | str, list[str]]] = {}
    for entry, path in drawn:
        labels = entry.final.labels
        row = cells.setdefault(entry.method, {})
        row.setdefault(labels, []).append(figure(path, f"{entry.name}, {labels} visible labels", PART))
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
    counted = any(entry.final.pflop is not None for entry in entries)
    for entry in entries:
        final = entry.final
        took = [f"{final.seconds / 3600:.3g}", *([tables.operations(final.pflop)] if counted else [])]
        made = [final.device, final.precision, final.commit]
        rows.append([entry.name, str(len(final.seeds)), f"{final.steps:,}", *took, *made])
    total = sum(entry.final.seconds for entry in entries) / 3600
    told = (
        f"Hours are of training, of all seeds of a run; {total:.3g} in all. Precision is that of float32 products and "
    )
    told += "convolutions; a dash where a run was recorded before it was said."
    if counted:
        told += " PFLOP are 10^15 operations of training, of one seed, which a busy machine cannot spoil."
    headers = ["run", "seeds", "steps", "hours", *(["PFLOP"] if counted else []), "device", "precision", "commit"]
    drawn = tables.html_table(headers, rows)
    return f'<h2>Cost</h2>{drawn}<p class="soft">{told}</p>'


def warnings(entries: Sequence[Entry]) -> str:
    """What a reader must know before any number: how the runs are not alike, and seeds that stopped."""
    parts = []
    known: list[tuple[str, Callable[[Entry], Any]]] = [
        ("data sets", lambda entry: entry.final.dataset),
        ("commits", lambda entry: entry.final.commit),
        ("numbers of seeds", lambda entry: len(entry.final.seeds)),
        ("precisions", lambda entry: entry.final.precision),
    ]
    for what, of in known:
        unsaid = {None} if what == "precisions" else set()  # by records that are older than it
        values = sorted({str(of(entry)) for entry in entries if of(entry) not in unsaid})
        if len(values) > 1:
            parts.append(f"These runs are of {len(values)} {what}: {', '.join(values)}.")
    for dataset in dict.fromkeys(entry.final.dataset for entry in entries):
        hashes = {entry.data for entry in entries if entry.final.dataset == dataset and entry.data is not None}
        if len(hashes) > 1:
            parts.append(f"The images called {dataset} are not the same in all runs: their hashes differ.")
    for entry in entries:
        for stop in entry.final.stopped:
            parts.append(f"{entry.name}: seed {stop.seed} stopped at step {stop.step:,}; it counts in no number.")
    return "".join(f'<div class="warning">{html.escape(part)}</div>' for part in parts)


def render(
    entries: Sequence[Entry], metrics: Sequence[str] = (), baseline: str | None = None, title: str | None = None
) -> str:
    """Finished runs -> the whole page as HTML.

    metrics: names without features and counts, by default the usual ones; baseline: as for `pairs`. Raises UserError.
    """
    full = chosen(entries, metrics)
    heading = title if title is not None else f"{count(len(entries), 'run')} compared"
    parts = [warnings(entries), f"<h1>{html.escape(heading)}</h1>", results(entries, full)]
    parts += [curves(entries, full), differences(entries, full, baseline), published(entries), samples(entries)]
    return document(heading, [*parts, cost(entries)])


def draw(entries: Sequence[Entry], metrics: Sequence[str], folder: Path, name: str) -> list[Path]:
    """Write the figures as FOLDER/NAME_METRIC.svg and .png, and return their paths; none where there is no curve."""
    written = []
    for each in figures(entries, metrics):
        written += efficiency.save(each, folder / f"{name}_{efficiency.short(each.metric)}")
    return written
