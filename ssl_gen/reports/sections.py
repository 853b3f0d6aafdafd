"""The parts of the report, each from one run's record to a piece of HTML, empty where the run has no such thing."""

from __future__ import annotations

import base64
import html
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_gen.reports import curves, pictures, records, tables
from ssl_gen.reports.style import LEVELS

CLASSES = 40  # a confusion matrix of more classes is a list of the commonest confusions instead
CONFUSIONS = 20  # rows of that list
ERRORS = ("latents", "pixels")  # what classes are told from, in latents.json
SPLITS = {"test": "first", "validation": "second"}  # where a measurement was made -> class of its curve


def count(number: int, noun: str, ending: str = "s") -> str:
    """1, 'seed' -> '1 seed'; 1300, 'image' -> '1,300 images'."""
    return f"{number:,} {noun}{'' if number == 1 else ending}"


def title(record: dict[str, Any]) -> str:
    """What was trained on what, with how many visible labels and seeds, in plain text."""
    labels = record["labels"]
    visible = "all labels visible" if labels == "all" else count(labels, "visible label")
    return f"{record['method']} on {record['dataset']}, {visible}, {count(len(record['seeds']), 'seed')}"


def introduction(run: records.Run) -> str:
    """The heading, the one number that matters most, and what was done in two sentences."""
    record, data = run.record, run.record["data"]
    parts = [f"<h1>{html.escape(title(record))}</h1>"]
    if run.final is not None and "error" in run.final["metrics"]:
        error = run.final["metrics"]["error"]
        if error["mean"] is not None:
            spread = "" if error["ci95"] is None else " (95 % interval {:.2f} to {:.2f})".format(*error["ci95"])
            deviation = "" if error["std"] is None else f" ± {error['std']:.2f}"
            parts.append(f'<p class="lead">Test error <b>{error["mean"]:.2f}{deviation} %</b>{spread}.</p>')
    size = f"{data['height']} by {data['width']} pixels, {count(data['channels'], 'channel')}"
    started = (
        f"{count(record['steps'], 'step')} on" if record["steps"] else "Fitted to"
    )  # classical methods take no steps
    done = f"{started} {count(data['train'], 'training image')} of {size}, in "
    done += f"{count(data['classes'], 'class', 'es')}; {count(data['test'], 'test image')}"
    done += f", {count(data['validation'], 'validation image')}." if data["validation"] else ", no validation images."
    took = "" if run.final is None else f" It took {tables.duration(run.final['seconds'])}."
    parts.append(f"<p>{html.escape(done + took)}</p>")
    commit = "of no known commit" if record["commit"] is None else f"commit {record['commit'][:12]}"
    source = f"Method: {record['paper']} ({record['family']}). Device: {record['device']}. Code: {commit}. "
    parts.append(f'<p class="soft">{html.escape(source)}Started {html.escape(record["created"])}.</p>')
    return "".join(parts)


def warnings(run: records.Run) -> str:
    """What a reader must know before any number: stopped seeds, an unfinished run, files that were skipped."""
    parts = []
    for stop in records.stopped(run):
        told = f"Seed {stop['seed']} stopped at step {stop['step']:,}: {stop['metric']} became {stop['value']}. "
        parts.append(html.escape(told) + "Its last good checkpoint was kept; it counts in no final number.")
    if run.final is None:
        reached = max((line["step"] for line in run.lines), default=0)
        parts.append(f"This run has not finished: {reached:,} of {run.record['steps']:,} steps are on record.")
    skipped = run.record["data"]["skipped"]
    if skipped:
        items = "".join(f"<li>{html.escape(_plain(item))}</li>" for item in skipped[:100])
        more = f"<li>and {len(skipped) - 100:,} more, see run.json</li>" if len(skipped) > 100 else ""
        told = f"{count(len(skipped), 'file')} could not be read and {'was' if len(skipped) == 1 else 'were'} skipped."
        parts.append(f"<details><summary>{told}</summary><ul>{items}{more}</ul></details>")
    return "".join(f'<div class="warning">{part}</div>' for part in parts)


def _metric_rows(metrics: dict[str, Any]) -> list[list[str]]:
    """One row a metric of final.json: name, mean ± std (n), interval, then every seed."""
    rows = []
    for name, metric in metrics.items():
        known = [abs(value) for value in metric["per_seed"] if value is not None]
        places = tables.decimals(name, max(known, default=0.0) if metric["mean"] == 0 else metric["mean"] or 0.0)
        interval = tables.MISSING
        if metric["ci95"] is not None:
            interval = " to ".join(tables.number(end, places) for end in metric["ci95"])
        shown = f"{name} (%)" if name == "error" or name.startswith("error_") else name
        per_seed = [tables.number(value, places) for value in metric["per_seed"]]
        rows.append([shown, tables.measured(name, metric), interval, *per_seed])
    return rows


def results(run: records.Run) -> str:
    """The final numbers, and apart from them what an oracle would have chosen."""
    if run.final is None:
        return ""
    headers = ["metric", "mean ± std (n)", "95 % interval", *(f"seed {seed}" for seed in run.final["seeds"])]
    parts = ["<h2>Results</h2>", tables.html_table(headers, _metric_rows(run.final["metrics"]))]
    parts.append(
        '<p class="soft">Mean and standard deviation (n - 1) over the n seeds that finished, each with its own mask; '
        "the interval is Student's t of the mean. A dash is a number that does not exist.</p>"
    )
    if run.final.get("averaged"):
        parts.append(
            f'<p class="soft">Measured at the running mean of the weights: {", ".join(run.final["averaged"])}.</p>'
        )
    for name, reason in run.final.get("unmeasured", {}).items():
        parts.append(f'<div class="warning">{html.escape(name)} could not be measured: {html.escape(reason)}</div>')
    if run.final.get("oracle"):
        parts.append("<h3>Oracle (best on test): not a result</h3>")
        parts.append(
            '<p class="soft">Chosen by looking at the test set, which no user could do. It bounds what better stopping '
            "could gain, and must not be quoted as a result.</p>"
        )
        parts.append(tables.html_table(headers, _metric_rows(run.final["oracle"]), "oracle"))
    return "".join(parts)


def _boundaries(run: records.Run) -> list[int]:
    """The steps at which one phase of training ends and the next begins."""
    return list(itertools.accumulate(phase["steps"] for phase in run.record["phases"]))[:-1]


def _legend(run: records.Run, lines: Sequence[curves.Line]) -> str:
    """What line, band and rules are, in words; each only where there is one."""
    parts = ["One seed, so no band."]
    if any((each.low != each.high).any() for each in lines):
        parts = ["Line: mean over seeds. Band: lowest to highest seed, each step over the seeds that reached it."]
    phases = itertools.pairwise(phase["name"] for phase in run.record["phases"])
    for step, (before, after) in zip(_boundaries(run), phases, strict=True):
        parts.append(f"Dashed rule at step {step:,}: {before} ends, {after} begins.")
    return html.escape(" ".join(parts))


def evaluations(run: records.Run) -> str:
    """Curves of what was measured during training: the error large, other measurements beside each other."""
    found: dict[str, list[curves.Line]] = {}
    for name in records.names(run.lines):
        split, _, metric = name.partition("/")
        if split in SPLITS and metric:
            line = curves.line(split, SPLITS[split], *records.curve(run.lines, name))
            found.setdefault(metric, []).extend([] if line is None else [line])
    found = {metric: lines for metric, lines in found.items() if lines}
    if not found:
        return ""
    parts = ["<h2>During training</h2>"]
    if "error" in found:
        lines = found.pop("error")
        keys = "".join(_key(line) for line in lines)
        picture = curves.chart(lines, "error in percent over training steps", 280, _boundaries(run), from_zero=True)
        parts.append(f"<figure><figcaption>Error (%) over training steps</figcaption><div>{keys}</div>{picture}")
        parts.append(f"<figcaption>{_legend(run, lines)}</figcaption></figure>")
    multiples = []
    for metric, lines in found.items():
        keys = "".join(_key(line) for line in lines)
        picture = curves.chart(lines, f"{metric} over training steps", 130, _boundaries(run))
        caption = f"<figcaption><b>{html.escape(metric)}</b><span>{keys}</span></figcaption>"
        multiples.append(f"<figure>{caption}{picture}</figure>")
    return "".join(parts) + (f'<div class="multiples">{"".join(multiples)}</div>' if multiples else "")


def _key(line: curves.Line) -> str:
    """One entry of a legend: a piece of the line and its name."""
    swatch = f'<svg aria-hidden="true"><line class="line {line.css}" x1="1" x2="33" y1="5" y2="5"/></svg>'
    return f'<span class="key">{swatch}{html.escape(line.name)}</span>'


def losses(run: records.Run) -> str:
    """Small curves of every number that training logged, by player."""
    players: dict[str, list[str]] = {}
    lines: list[curves.Line] = []
    for name in records.names(run.lines):
        player, _, term = name.rpartition("/")
        line = None if player in SPLITS else curves.line(name, "first", *records.curve(run.lines, name), points=120)
        if line is None:
            continue
        lines.append(line)
        picture = curves.chart([line], f"{name} over training steps", 120, _boundaries(run))
        caption = f"<b>{html.escape(term)}</b><span>last {curves.short(float(line.mean[-1]))}</span>"
        players.setdefault(player, []).append(f"<figure><figcaption>{caption}</figcaption>{picture}</figure>")
    if not players:
        return ""
    parts = [
        "<h2>Losses</h2>",
        f'<p class="soft">{_legend(run, lines)} An axis that counts in powers of ten is logarithmic.</p>',
    ]
    for player, figures in players.items():
        parts.append(f'<h3>{html.escape(player or "step")}</h3><div class="multiples">{"".join(figures)}</div>')
    return "".join(parts)


def samples(run: records.Run) -> str:
    """The sample grid, embedded, with the titles of its columns and its other text."""
    if run.samples is None:
        return ""
    text = pictures.read_text(run.samples)
    caption = "Samples."
    if pictures.COLUMNS in text:
        caption = f"One class a column, from left to right: {', '.join(json.loads(text.pop(pictures.COLUMNS)))}."
    caption = " ".join([caption, *(f"{key}: {value}." for key, value in text.items())])
    return f"<h2>Samples</h2>{figure(run.samples, caption)}"


def figure(path: Path, caption: str, part: int = 1) -> str:
    """A PNG, embedded, at its own size or a whole `part` of it, with a caption in plain text below it.

    It is never fitted to the page, which would blur its pixels and shrink its text: where it is wider, its box scrolls.
    """
    caption = html.escape(caption)
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    width, height = (side // part for side in pictures.size(path))
    image = f'<img class="samples" width="{width}" height="{height}" alt="{caption}"'
    image += f' src="data:image/png;base64,{data}">'
    return f'<figure><div class="scroll">{image}</div><figcaption>{caption}</figcaption></figure>'


def latents(run: records.Run) -> str:
    """What `ssl-gen latents` found: pictures with their captions, errors from latents, and what is left out."""
    found = run.latents
    if found is None:
        return ""
    told = (
        f"{count(found['images'], 'image')} of the {found['split']} split as {count(found['latents'], 'latent')} each, "
    )
    parts = [f'<h2>Latents</h2><p class="soft">{html.escape(told)}by seed {found["replica"]}.</p>']
    for picture in found["pictures"]:
        path = run.folder / Path(picture["file"]).name
        if path.is_file():
            pictures.read_text(path)  # raises where the file is damaged
            parts.append(figure(path, picture["caption"]))
    if found["errors"]:
        rows = [[name, *(f"{each[kind]:.2f}" for kind in ERRORS)] for name, each in found["errors"].items()]
        parts.append(tables.html_table(["class told by", *(f"from {kind} (error, %)" for kind in ERRORS)], rows))
        parts.append('<p class="soft">Cross-validated on these images and their true classes.</p>')
    return "".join(parts) + "".join(f'<p class="soft">{html.escape(line)}.</p>' for line in found["left_out"])


def confusion(run: records.Run) -> str:
    """True class by predicted class, counts over all seeds, coloured by their share of the row."""
    if run.final is None or "confusion" not in run.final:
        return ""
    counts, classes = run.final["confusion"], run.record["data"]["class_names"]
    head = "<h2>Confusion matrix</h2>"
    if len(classes) > CLASSES:
        pairs = [(n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if i != j and n]
        rows = [[classes[i], classes[j], f"{n:,}"] for n, i, j in sorted(pairs, reverse=True)[:CONFUSIONS]]
        told = f'<p class="soft">The {len(rows)} commonest of {len(classes)} classes, summed over the seeds.</p>'
        return head + told + tables.html_table(["true class", "predicted class", "images"], rows)
    up = ' class="up"' if max(map(len, classes)) > 5 else ""
    names = "".join(f'<th scope="col"><span{up}>{html.escape(name)}</span></th>' for name in classes)
    body = []
    for name, row in zip(classes, counts, strict=True):
        total = max(sum(row), 1)
        cells = "".join(f'<td class="c{math.ceil(LEVELS * n / total)}">{n}</td>' for n in row)
        body.append(f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>')
    told = '<p class="soft">Test images by true class (rows) and predicted class (columns), summed over the seeds; '
    told += "the darker or stronger the colour, the larger the share of its row.</p>"
    table = f'<table class="confusion"><thead><tr><th></th>{names}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return f'{head}{told}<div class="scroll">{table}</div>'


def masks(run: records.Run) -> str:
    """The label masks: name, hash, how many labels are visible in a pool of how many images."""
    rows = [
        [each["name"], each["sha256"][:12], f"{each['visible']:,}", f"{each['pool']:,}"] for each in run.record["masks"]
    ]
    scheme = ", ".join(f"{key}: {value}" for key, value in _flat(run.record["mask"]))
    table = tables.html_table(["mask", "SHA-256 (first 12 digits)", "visible labels", "images in the pool"], rows)
    return f'<h2>Label masks</h2>{table}<p class="soft">{html.escape(scheme)}</p>'


def _plain(value: Any) -> str:
    """A scalar as it reads, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested object -> (dotted key, text) pairs."""
    pairs = []
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            pairs += _flat(inner, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, _plain(inner)))
    return pairs


def settings(run: records.Run) -> str:
    """The command to repeat the run, and everything in run.json that says what was run, folded away."""
    parts = [f"<h2>Repeat this run</h2><pre><code>{html.escape(run.record['command'])}</code></pre>"]
    parts.append("<details><summary>Settings, data and versions</summary>")
    data = {key: value for key, value in run.record["data"].items() if key != "skipped"}  # these are at the top
    for heading, record in (("Config", run.record["config"]), ("Data", data), ("Versions", run.record["versions"])):
        parts.append(f"<h3>{heading}</h3>{tables.html_table(['name', 'value'], _flat(record), 'wrap')}")
    rows = [["; ".join(": ".join(pair) for pair in _flat(phase))] for phase in run.record["phases"]]
    parts.append(f"<h3>Phases</h3>{tables.html_table(['in order'], rows, 'wrap')}</details>")
    return "".join(parts)
