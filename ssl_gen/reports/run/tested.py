"""The part of the report that shows test images: behind each cell of the confusion matrix, wrong ones, unsure ones."""

from __future__ import annotations

import html
from collections.abc import Sequence

from ssl_gen.core.wording import count
from ssl_gen.reports.run_folder import Run
from ssl_gen.reports.tested import Tested

SIDE = 64  # CSS pixels of a thumbnail, about; ours


def rules(run: Run) -> str:
    """Style rules of the pictures; none where there are no pictures."""
    return "" if run.tested is None else run.tested.sprite.rules()


def linked(run: Run, true: int, predicted: int, images: int) -> str:
    """The number of a cell, which opens the images behind it where there are some to show."""
    if run.tested is None or not run.tested.cell(true, predicted):
        return f"{images}"
    classes = run.record.data.class_names
    said = html.escape(f"{images}: {classes[true]} taken for {classes[predicted]}, show images")
    return f'<a href="#cell-{true}-{predicted}" aria-label="{said}">{images}</a>'


def cells(run: Run) -> str:
    """The images behind every cell, each part hidden until its cell is opened."""
    if run.tested is None or run.final is None or run.final.confusion is None:
        return ""
    parts, classes = [], run.record.data.class_names
    for true, row in enumerate(run.final.confusion):
        for predicted, images in enumerate(row):
            found = run.tested.cell(true, predicted) if images else []
            if found:
                names = html.escape(f"{classes[true]}, taken for {classes[predicted]}")
                told = f"{images:,} over all seeds, {count(len(found), 'image')} shown"
                parts.append(
                    f'<section class="cell" id="cell-{true}-{predicted}"><h3>{names}</h3><p class="soft">{told}. '
                    f'<a href="#confusion">Close</a></p>{_images(run, run.tested, found)}</section>'
                )
    return "".join(parts)


def galleries(run: Run) -> str:
    """The wrong test images, and the least certain."""
    if run.tested is None:
        return ""
    parts = ["<h2>Test images</h2>"]
    wrong, unsure = run.tested.wrong(), run.tested.unsure()
    told = "By the mean probability of the seeds, the surest first: odd images, or odd labels."
    if wrong:
        parts.append(f'<h3>Wrong</h3><p class="soft">{told}</p>{_images(run, run.tested, wrong)}')
    parts.append(f"<h3>Least certain</h3>{_images(run, run.tested, unsure)}")
    return "".join(parts)


def _images(run: Run, tested: Tested, found: Sequence[int]) -> str:
    """Thumbnails with what they are and what they were taken for."""
    side = tested.sprite.cell * max(1, round(SIDE / tested.sprite.cell))
    parts, classes = [], run.record.data.class_names
    for number in found:
        each = tested.images[number]
        sheet, style = tested.sprite.style(number, side)
        true, guess = (html.escape(classes[k]) for k in (each.label, each.guess))
        told = f"{true}, taken for {guess}" if each.guess != each.label else true
        told += f", {100 * each.share:.0f}&nbsp;%"
        drawn = f'<span class="thumbnail {sheet}" style="{style}" role="img" aria-label="test image {each.row}"></span>'
        parts.append(f'<figure style="width:{side}px">{drawn}<figcaption>{told}</figcaption></figure>')
    return f'<div class="thumbnails">{"".join(parts)}</div>'
