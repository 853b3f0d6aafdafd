"""Docstrings as HTML: prose in paragraphs, indented blocks as equations with sub- and superscripts.

Docstrings write mathematics as plain text: `E_(x,y) log p(y | x)`, `x_t`, `2^i`, `|d|^2`, `(3^8 - 1)`. What follows `_`
or `^` is one letter, a word or a number (with a sign, also a fraction: `D^-1/2`), or whatever stands in parentheses,
which are left out. Nothing else of the text is lost.
"""

from __future__ import annotations

import ast
import html
import re
from typing import NamedTuple

# what may carry a subscript: one letter, a bracket, or one of these words; so `warm_up` stays as it is
WORDS = (
    "sum|prod|max|min|argmax|argmin|grad|log|exp|lim|ybar|alpha|beta|gamma|delta|theta|phi|psi|sigma|mu|lambda|epsilon"
)
SUBSCRIPT = re.compile(rf"(?:(?<![A-Za-z0-9_])(?:[A-Za-z]|{WORDS})['~]*|[)\]|])$")
WORD = re.compile(r"[A-Za-z0-9]+")
POWER = re.compile(r"[+-][0-9]+(?:/[0-9]+)?|[+-]?(?:[0-9]+|[A-Za-z]+)")
LETTER = re.compile(r"(?<![A-Za-z0-9`'])([A-Za-z])(?![A-Za-z0-9]|-[A-Za-z]{2})")
ARTICLE = re.compile(r"\ba(?= [a-z]{2,}\b)")  # "of a uniform class"
EXPECTATION = re.compile(r"(?<![A-Za-z0-9_])E$")
WORDS_AFTER_SPACE = re.compile(r"(?<=\s)\S")
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


SLACK = 1  # letters by which a word may miss its column and still be in it


class Cell(NamedTuple):
    """A part of a line of an equation."""

    start: int  # the column that it is in
    text: str  # with the spaces after it, and, of the first one, those before it


def closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` closes; -1 where it never does."""
    depth = 0
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    return -1


def scripts(text: str, italic: bool = True) -> str:
    """Mathematics as HTML: sub- and superscripts, single letters in italics or not."""
    pieces, plain, i = [], "", 0
    show = italics if italic else escape
    while i < len(text):
        taken = script(text, i)
        if taken is None:
            plain += text[i]
            i += 1
            continue
        tag, inner, i = taken
        pieces += [show(plain), f"<{tag}>{scripts(inner, italic)}</{tag}>"]
        plain = ""
    return "".join(pieces) + show(plain)


def script(text: str, i: int) -> tuple[str, str, int] | None:
    """The sub- or superscript that the mark at `i` begins: its tag, its text and where the rest begins."""
    mark, start, before = text[i], i + 1, text[:i]
    if mark not in "_^" or start == len(text) or not before or before[-1].isspace():
        return None
    if mark == "_" and not SUBSCRIPT.search(before):
        return None
    tag = "sub" if mark == "_" else "sup"
    if text[start] == "(":
        end = closing(text, start)
        return None if end < 0 else (tag, text[start + 1 : end], end + 1)
    found = (WORD if mark == "_" else POWER).match(text, start)
    if not found:
        return None
    end = found.end()
    if mark == "_" and EXPECTATION.search(before) and text[end : end + 1] == "(":  # E_q(z|x): under the distribution q
        end = closing(text, end) + 1 or end
    return tag, text[start:end], end


def escape(text: str) -> str:
    return html.escape(text, quote=False)


def italics(text: str) -> str:
    """Escaped text with its single letters, the variables, in italics; E, the expectation, stays upright."""
    articles = {found.start() for found in ARTICLE.finditer(text)}
    pieces, end = [], 0
    for found in LETTER.finditer(text):
        if found[1] == "E" or found.start() in articles:
            continue
        pieces += [escape(text[end : found.start()]), f"<i>{found[1]}</i>"]
        end = found.end()
    return "".join(pieces) + escape(text[end:])


def columns(lines: list[str]) -> list[int]:
    """Where the columns of a block begin: at places where two lines have a word, one of them after a gap."""
    starts: dict[int, list[bool]] = {}
    for line in lines:
        for found in WORDS_AFTER_SPACE.finditer(line):
            starts.setdefault(found.start(), []).append(after_gap(line, found.start()))
    return [0, *sorted(start for start, gaps in starts.items() if len(gaps) > 1 and any(gaps))]


def after_gap(line: str, start: int) -> bool:
    """Does a word of a line stand apart from what is before it?"""
    return line[:start].endswith("  ") or not line[:start].strip()


def cells(line: str, starts: list[int]) -> list[Cell]:
    """A line cut at the columns where one of its words begins after a gap, or beside an equals sign."""
    found: dict[int, int] = {}  # column -> where the word begins
    for word in WORDS_AFTER_SPACE.finditer(line):
        at = word.start()
        near = [column for column in starts[1:] if abs(column - at) <= SLACK]
        beside_equals = at in starts and (line[at] == "=" or line[:at].endswith("= "))
        if near and (beside_equals or after_gap(line, at)):
            found.setdefault(min(near, key=lambda column: abs(column - at)), at)
    if not found or line[: min(found.values())].strip():
        found = {0: 0, **found}
    ends = [*list(found.values())[1:], len(line)]
    begins = [0, *list(found.values())[1:]]
    return [Cell(column, line[a:b]) for column, a, b in zip(found, begins, ends, strict=True)]


def is_code(block: str) -> bool:
    """Is a block Python that calls something with a text or by keyword? No equation does."""
    try:
        nodes = list(ast.walk(ast.parse(block)))
    except SyntaxError:
        return False
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    return any(call.keywords or any(isinstance(each, ast.Constant) for each in call.args) for call in calls)


def is_list(lines: list[str]) -> bool:
    """Are lines of prose a list, each a name, a gap and what it is?"""
    return len(lines) > 1 and all(re.match(r"\S+ {2,}\S", line) for line in lines)


def equation(block: str, italic: bool = True) -> str:
    """An indented block, its indentation taken off, as a `<pre class="equation">` whose columns stay columns.

    Without `italic` it is a list of words, shown as prose is.
    """
    lines = block.split("\n")
    starts = columns(lines)
    rows = []
    for row, line in enumerate(lines, 1):
        cut = cells(line, starts)
        parts = []
        for i, cell in enumerate(cut):
            first = starts.index(cell.start) + 1
            last = starts.index(cut[i + 1].start) + 1 if i + 1 < len(cut) else len(starts) + 1
            text = cell.text if cell.start == 0 else cell.text.lstrip()
            space, text = cell.text[: len(cell.text) - len(text)], text.rstrip()
            after = cell.text[len(space) + len(text) :]
            place = f"grid-area:{row}/{first}/{row + 1}/{last}"
            parts.append(f'{space}<span style="{place}">{scripts(text, italic)}</span>{after}')
        rows.append("".join(parts))
    fixed = f"repeat({len(starts) - 1},max-content) " if len(starts) > 1 else ""
    tracks = f"grid-template-columns:{fixed}minmax(max-content,1fr)"  # long cells widen the last column alone
    kind = "equation" if italic else "equation list"
    return f'<pre class="{kind}" tabindex="0" style="{tracks}">' + "\n".join(rows) + "</pre>"


def prose(text: str) -> str:
    """A paragraph as HTML: `code`, mathematics and links to arXiv."""
    parts = []
    for i, part in enumerate(text.split("`")):
        if i % 2:
            parts.append(f"<code>{escape(part)}</code>")
            continue
        for j, piece in enumerate(ARXIV.split(part)):
            link = f'<a href="https://arxiv.org/abs/{piece}">arXiv:{piece}</a>'
            parts.append(link if j % 2 else scripts(piece, italic=False))  # "a" and "I" are words here
    return "".join(parts)


def blocks(docstring: str) -> list[tuple[bool, list[str]]]:
    """The parts of a docstring between blank lines or changes of indentation: is it indented, and its lines."""
    parts: list[tuple[bool, list[str]]] = []
    blank = True
    for line in docstring.strip("\n").split("\n"):
        if not line.strip():
            blank = True
            continue
        indented = line.startswith("    ")
        if blank or parts[-1][0] != indented:
            parts.append((indented, []))
        parts[-1][1].append(line[4:].rstrip() if indented else line.rstrip())
        blank = False
    return parts


def render(docstring: str) -> str:
    """A docstring, cleaned of its own indentation (inspect.cleandoc), as HTML."""
    parts = []
    for indented, lines in blocks(docstring):
        block = "\n".join(lines)
        if indented and is_code(block):
            parts.append(f"<pre><code>{escape(block)}</code></pre>")
        elif indented or is_list(lines):
            parts.append(equation(block, italic=indented))
        else:
            parts.append(f"<p>{prose(' '.join(line.strip() for line in lines))}</p>")
    return "\n\n".join(parts)
