"""The parts of the report, each from one run's record to a piece of HTML, empty where the run has no such thing."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_gen.core.plain import to_plain
from ssl_gen.core.wording import count
from ssl_gen.metrics.statistics import Summary
from ssl_gen.reports import tables
from ssl_gen.reports.charts import pictures
from ssl_gen.reports.charts.style import LEVELS
from ssl_gen.reports.document import figure, image
from ssl_gen.reports.records import RunRecord
from ssl_gen.reports.run import tested
from ssl_gen.reports.run_folder import Run, stopped

CLASSES = 40  # a confusion matrix of more classes is a list of the commonest confusions instead
CONFUSIONS = 20  # rows of that list
ERRORS = ("latents", "pixels")  # what classes are told from, in latents.json
THUMBNAIL = 3  # samples over time are shown at this part of their size: five of them fit a page, one a telephone; ours


def title(record: RunRecord) -> str:
    """What was trained on what, with how many visible labels and seeds, in plain text."""
    visible = count(record.labels, "visible label") if isinstance(record.labels, int) else "all labels visible"
    return f"{record.method} on {record.dataset}, {visible}, {count(len(record.seeds), 'seed')}"


def introduction(run: Run) -> str:
    """The heading, the one number that matters most, and what was done in two sentences."""
    record, data = run.record, run.record.data
    parts = [f"<h1>{html.escape(title(record))}</h1>"]
    if run.final is not None and "error" in run.final.metrics:
        error = run.final.metrics["error"]
        if error["mean"] is not None:
            spread = "" if error["ci95"] is None else " (95 % interval {:.2f} to {:.2f})".format(*error["ci95"])
            deviation = "" if error["std"] is None else f" ± {error['std']:.2f}"
            parts.append(f'<p class="lead">Test error <b>{error["mean"]:.2f}{deviation} %</b>{spread}.</p>')
    size = f"{data.height} by {data.width} pixels, {count(data.channels, 'channel')}"
    # classical methods take no steps
    started = f"{count(record.steps, 'step')} on" if record.steps else "Fitted to"
    done = f"{started} {count(data.train, 'training image')} of {size}, in "
    done += f"{count(data.classes, 'class', 'es')}; {count(data.test, 'test image')}"
    done += f", {count(data.validation, 'validation image')}." if data.validation else ", no validation images."
    took = "" if run.final is None else f" It took {tables.duration(run.final.seconds)}"
    if run.final is not None:
        rate, share = run.final.images_per_second, run.final.share_of_peak
        took += "" if run.final.pflop is None else f" and {tables.operations(run.final.pflop)} PFLOP a seed"
        took += "" if rate is None else f", {rate:,.{0 if rate >= 100 else 1}f} images a second"
        took += "." if share is None else f", {100 * share:.2g} % of the chip's peak."
    parts.append(f"<p>{html.escape(done + took)}</p>")
    if run.record.read is not None:
        parts.append(f'<p class="soft">{html.escape(run.record.read.line)}.</p>')
    made = run.final or record  # in parts, some of them elsewhere, it may have gone on
    commit = "of no known commit" if made.commit is None else f"commit {made.commit}"
    products = "" if made.precision is None else f", products in precision {made.precision}"
    source = f"Method: {record.paper} ({record.family}). Device: {made.device}{products}. Code: {commit}. "
    parts.append(f'<p class="soft">{html.escape(source)}Started {html.escape(record.created)}.</p>')
    return "".join(parts)


def warnings(run: Run) -> str:
    """What a reader must know before any number: stopped seeds, an unfinished run, odd data, skipped files."""
    parts = []
    for stop in stopped(run):
        told = f"Seed {stop.seed} stopped at step {stop.step:,}: {stop.metric} became {stop.value}. "
        parts.append(html.escape(told) + "Its last good checkpoint was kept; it counts in no final number.")
    if run.final is None:
        reached = max((line["step"] for line in run.lines), default=0)
        parts.append(f"This run has not finished: {reached:,} of {run.record.steps:,} steps are on record.")
    parts += [html.escape(f"Of the data: {each}.") for each in (run.record.read.warnings if run.record.read else [])]
    skipped = run.record.data.skipped
    if skipped:
        items = "".join(f"<li>{html.escape(item)}</li>" for item in skipped[:100])
        more = f"<li>and {len(skipped) - 100:,} more, see run.json</li>" if len(skipped) > 100 else ""
        told = f"{count(len(skipped), 'file')} could not be read and {'was' if len(skipped) == 1 else 'were'} skipped."
        parts.append(f"<details><summary>{told}</summary><ul>{items}{more}</ul></details>")
    return "".join(f'<div class="warning">{part}</div>' for part in parts)


def _metric_rows(metrics: Mapping[str, Summary]) -> list[list[str]]:
    """One row a metric of final.json: name, mean ± std (n), interval, then every seed."""
    rows = []
    for name, metric in metrics.items():
        known = [abs(value) for value in metric["per_seed"] if value is not None]
        places = tables.decimals(name, max(known, default=0.0) if metric["mean"] == 0 else metric["mean"] or 0.0)
        interval = tables.MISSING
        if metric["ci95"] is not None:
            interval = " to ".join(tables.number(end, places) for end in metric["ci95"])
        per_seed = [tables.number(value, places) for value in metric["per_seed"]]
        rows.append([tables.headed(name), tables.measured(name, metric), interval, *per_seed])
    return rows


def results(run: Run) -> str:
    """The final numbers, and apart from them what an oracle would have chosen."""
    if run.final is None:
        return ""
    headers = ["metric", "mean ± std (n)", "95 % interval", *(f"seed {seed}" for seed in run.final.seeds)]
    parts = ["<h2>Results</h2>", tables.html_table(headers, _metric_rows(run.final.metrics))]
    parts.append(
        f'<p class="soft">Mean and standard deviation (n - 1) over the n seeds that finished, {spread_of(run)}; '
        "the interval is Student's t of the mean. A dash is a number that does not exist.</p>"
    )
    if run.final.averaged:
        parts.append(f'<p class="soft">Measured at the EMA of the weights: {", ".join(run.final.averaged)}.</p>')
    for name, reason in run.final.unmeasured.items():
        parts.append(f'<div class="warning">{html.escape(tables.undone(name, reason))}</div>')
    if run.final.oracle:
        parts.append("<h3>Oracle (best on test): not a result</h3>")
        parts.append(
            '<p class="soft">Chosen by looking at the test set, which no user could do. It bounds what better stopping '
            "could gain, and must not be quoted as a result.</p>"
        )
        parts.append(tables.html_table(headers, _metric_rows(run.final.oracle), "oracle"))
    return "".join(parts)


def spread_of(run: Run) -> str:
    """What differs between the seeds of a run: all its spread and its interval speak of."""
    if len({mask.sha256 for mask in run.record.masks}) == len(run.record.masks):
        return "each with its own mask"
    return "all on one mask: spread and interval are of training on these labels, not of other draws of labels"


def samples(run: Run) -> str:
    """Samples over time, small and side by side in a box that scrolls, then those of the finished run."""
    if run.samples is None and not run.over_time:
        return ""
    grid = "" if run.samples is None else figure(run.samples, _grid_caption(run.samples))
    return f"<h2>Samples</h2>{_over_time(run)}{grid}"


def _over_time(run: Run) -> str:
    """The grids drawn during training, by step; nothing where there are none."""
    if not run.over_time:
        return ""
    figures = []
    for step, path in run.over_time:
        pictures.read_text(path)  # raises where the file is damaged
        drawn = image(path, f"samples at step {step:,}", THUMBNAIL)
        figures.append(f"<figure>{drawn}<figcaption>step {step:,}</figcaption></figure>")
    return f'<div class="scroll"><div class="strip">{"".join(figures)}</div></div>'


def _grid_caption(path: Path) -> str:
    """The titles of a grid's columns and its other text."""
    text = pictures.read_text(path)
    caption = "Samples."
    if pictures.COLUMNS in text:
        caption = f"One class a column, from left to right: {', '.join(json.loads(text.pop(pictures.COLUMNS)))}."
    return " ".join([caption, *(f"{key}: {value}." for key, value in text.items())])


def latents(run: Run) -> str:
    """What `ssl-gen latents` found: pictures with their captions, errors from latents, and what is left out."""
    found = run.latents
    if found is None:
        return ""
    told = f"{count(found.images, 'image')} of the {found.split} split as {count(found.latents, 'latent')} each, "
    parts = [f'<h2>Latents</h2><p class="soft">{html.escape(told)}by seed {run.record.seeds[found.replica]}.</p>']
    for picture in found.pictures:
        path = run.folder / Path(picture.file).name
        if path.is_file():
            pictures.read_text(path)  # raises where the file is damaged
            parts.append(figure(path, picture.caption))
    if found.errors:
        rows = [[name, *(f"{each[kind]:.2f}" for kind in ERRORS)] for name, each in found.errors.items()]
        parts.append(tables.html_table(["class told by", *(f"from {kind} (error, %)" for kind in ERRORS)], rows))
        parts.append('<p class="soft">Cross-validated on these images and their true classes.</p>')
    return "".join(parts) + "".join(f'<p class="soft">{html.escape(line)}.</p>' for line in found.left_out)


def confusion(run: Run) -> str:
    """True class by predicted class, counts over all seeds, coloured by their share of the row."""
    if run.final is None or run.final.confusion is None:
        return ""
    counts, classes = run.final.confusion, run.record.data.class_names
    head = '<h2 id="confusion">Confusion matrix</h2>'
    if len(classes) > CLASSES:
        pairs = [(n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if i != j and n]
        rows = [[classes[i], classes[j], f"{n:,}"] for n, i, j in sorted(pairs, reverse=True)[:CONFUSIONS]]
        told = f'<p class="soft">The {len(rows)} commonest of {len(classes)} classes, summed over the seeds.</p>'
        return head + told + tables.html_table(["true class", "predicted class", "images"], rows)
    up = ' class="up"' if max(map(len, classes)) > 5 else ""
    names = "".join(f'<th scope="col"><span{up}>{html.escape(name)}</span></th>' for name in classes)
    body = []
    for true, (name, row) in enumerate(zip(classes, counts, strict=True)):
        total = max(sum(row), 1)
        cells = "".join(
            f'<td class="c{math.ceil(LEVELS * n / total)}">{tested.linked(run, true, k, n)}</td>'
            for k, n in enumerate(row)
        )
        body.append(f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>')
    told = '<p class="soft">Test images by true class (rows) and predicted class (columns), summed over the seeds; '
    told += "the darker or stronger the colour, the larger the share of its row."
    told += " A number opens the images behind it.</p>" if run.tested else "</p>"
    table = f'<table class="confusion"><thead><tr><th></th>{names}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return f'{head}{told}<div class="scroll">{table}</div>{tested.cells(run)}'


def masks(run: Run) -> str:
    """The label mask of each seed: name, hash, how many labels are visible in a pool of how many images."""
    rows = [
        [str(seed), each.name, each.sha256[:12], f"{each.visible:,}", f"{each.pool:,}"]
        for seed, each in zip(run.record.seeds, run.record.masks, strict=True)
    ]
    scheme = ", ".join(f"{key}: {value}" for key, value in _flat(run.record.mask))
    headers = ["seed", "mask", "SHA-256 (first 12 digits)", "visible labels", "images in the pool"]
    table = tables.html_table(headers, rows)
    return f'<h2>Label masks</h2>{table}<p class="soft">{html.escape(scheme)}</p>'


def _plain(value: Any) -> str:
    """A scalar as it reads, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested object -> (dotted key, text) pairs."""
    pairs = []
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            pairs += _flat(inner, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, _plain(inner)))
    return pairs


def settings(run: Run) -> str:
    """The command to repeat the run, and everything in run.json that says what was run, folded away."""
    record = run.record
    parts = [f"<h2>Repeat this run</h2><pre><code>{html.escape(record.command)}</code></pre>"]
    parts.append("<details><summary>Settings, data and versions</summary>")
    data = {key: value for key, value in to_plain(record.data).items() if key != "skipped"}  # these are at the top
    shown = {"Config": record.config, "Sampler": record.sampler, "Data": data, "Versions": record.versions}
    for heading, values in shown.items():
        if values:
            parts.append(f"<h3>{heading}</h3>{tables.html_table(['name', 'value'], _flat(values), 'wrap')}")
    rows = [[f"name: {phase.name}; steps: {phase.steps}"] for phase in record.phases]
    parts.append(f"<h3>Phases</h3>{tables.html_table(['in order'], rows, 'wrap')}</details>")
    return "".join(parts)
