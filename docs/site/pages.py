"""Pages made from the code: methods from their modules, metrics from the registry, the API's lists of modules."""

from __future__ import annotations

import ast
import dataclasses
import html
import inspect
import io
import re
import sys
import tokenize
import typing
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from docs.site.equations import prose, render

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = {  # in the order of the pages
    "classical": "Floors, ceilings and classical methods",
    "adversarial": "Adversarial",
    "variational": "Variational",
    "self_training": "Self-training",
    "diffusion": "Diffusion and flows",
}
AT_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}  # file -> page
SOURCE = re.compile(
    r"^(ours|official|papers?\b|the papers?|sec\. |Lee |Jordan |[A-Z][\w.]+ (et al\.|and [A-Z]\w+) \d{4})"
)
API = {  # page -> modules, and what the page is
    "ssl_gen": (("ssl_gen",), "What a script or a notebook needs."),
    "types": (("ssl_gen.types",), "Read first: what flows between data, methods and training."),
    "core": (
        tuple(f"ssl_gen.core.{name}" for name in ("players", "gradient", "batching", "schedules", "samplers")),
        "What every method page is made of.",
    ),
    "datasets": (
        tuple(f"ssl_gen.datasets.{name}" for name in ("sources", "folders", "dataset", "masking", "batches", "store")),
        "Images, label masks and batches.",
    ),
    "metrics": (("ssl_gen.metrics.metric", "ssl_gen.metrics.registry"), "What a metric is, and all of them by name."),
    "evaluation": (
        tuple(f"ssl_gen.evaluation.{name}" for name in ("inference", "features", "reference", "evaluated")),
        "Trained states put to use, and what metrics may ask of one.",
    ),
    "runs": (
        tuple(f"ssl_gen.runs.{name}" for name in ("options", "train", "load", "evaluate", "evaluators", "export")),
        "Run folders: made, read, measured again, exported.",
    ),
}


class Setting(NamedTuple):
    """One field of a dataclass of settings."""

    name: str
    default: str  # as its source has it
    meaning: str
    source: str


def settings(kind: type) -> list[Setting]:
    """The fields of a dataclass, inherited ones first, with the comments on their lines, cut at the first semicolon."""
    bases = [base for base in reversed(kind.__mro__) if dataclasses.is_dataclass(base)]
    found = {each.name: each for base in bases for each in own_settings(base)}
    return list(found.values())


def own_settings(kind: type) -> list[Setting]:
    """The fields that stand in the class itself."""
    module = sys.modules[kind.__module__]
    comments = line_comments(inspect.getsource(module))
    found = []
    for node in class_node(module, kind.__name__).body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value):
            continue
        comment = comments.get(node.end_lineno or 0, "")
        meaning, _, source = comment.partition("; ")
        if not source and SOURCE.match(comment):
            meaning, source = "", comment
        choices = allowed(kind, node.target.id)
        meaning = "; ".join(part for part in (meaning, choices) if part)
        found.append(Setting(node.target.id, shown(node.value, module), meaning, source))
    return found


def class_node(module: ModuleType, name: str) -> ast.ClassDef:
    nodes = ast.parse(inspect.getsource(module)).body
    return next(node for node in nodes if isinstance(node, ast.ClassDef) and node.name == name)


def line_comments(source: str) -> dict[int, str]:
    """Line number -> the comment on that line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def allowed(kind: type, name: str) -> str:
    """The values that a Literal allows, as text; empty for other types."""
    hint = typing.get_type_hints(kind)[name]
    if typing.get_origin(hint) is not typing.Literal:
        return ""
    return "one of " + ", ".join(f"`{value}`" for value in typing.get_args(hint))


def shown(node: ast.expr, module: ModuleType) -> str:
    """A value as its source has it; of other settings inside, those that are not their own default."""
    text = ast.unparse(node)
    value = eval(text, vars(module))  # the source of a module that is imported already
    if isinstance(value, str):
        return f"`{value}`"
    if not dataclasses.is_dataclass(value):
        return f"`{text}`"
    changed = [
        f"{field.name} {getattr(value, field.name)}"
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != field.default
    ]
    return ", ".join(changed) or "none"


def preset(name: str, module: ModuleType) -> dict[str, str]:
    """What a preset of a method changes: setting -> value; empty where it has none."""
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name.upper():
            given = node.value.keywords if isinstance(node.value, ast.Call) else []
            return {str(keyword.arg): shown(keyword.value, module) for keyword in given}
    return {}


def table(header: list[str], rows: list[list[str]]) -> str:
    """A markdown table; bars inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "&#124;") for cell in row) + " |" for row in lines)


def boxed(settings_table: str) -> str:
    """A table whose last columns are prose: style.css gives them room."""
    return f'<div class="prose-last" markdown>\n\n{settings_table}\n\n</div>'


def note(text: str) -> str:
    """A comment as HTML inside a cell."""
    return prose(text)


def abilities(entry: dict[str, Any]) -> str:
    """What a method can do, in words."""
    drawn = "images of a class asked for" if entry["conditional"] else "images, of no class asked for"
    can = {
        "classify": "classifies",
        "sample": f"draws {drawn}",
        "encode": "encodes",
        "decode": "decodes",
    }
    return ", ".join(words for name, words in can.items() if entry[name])


def method_page(name: str, module: ModuleType, entry: dict[str, Any]) -> str:
    """A method: its docstring with the equations, what it can do, its settings."""
    first, _, rest = inspect.cleandoc(str(module.__doc__)).partition("\n\n")
    head = first.replace("\n", " ")
    from ssl_gen.cli.commands import PRESETS

    config = settings(module.Config)
    presets = {name: preset(name, module) for name in PRESETS[1:] if hasattr(module, name.upper())}
    header = ["setting", "default", *presets, "meaning", "source, other values"]
    rows = [
        [
            f"`{each.name}`",
            each.default,
            *(changes.get(each.name, "") for changes in presets.values()),
            note(each.meaning),
            note(each.source),
        ]
        for each in config
    ]
    steps = "trained in steps" if any(each.name == "steps" for each in config) else "fitted in one go"
    parts = [
        f"# {name}",
        f"<p><strong>{prose(head)}</strong></p>",
        render(rest),
        f"It {abilities(entry)}; it is {steps}. File: `{module.__name__.replace('.', '/')}.py`.",
        "## Settings",
        f"On the command line `--config.NAME VALUE`, with hyphens for underscores (`ssl-gen train {name} --help`); "
        f'from Python the fields of `ssl_gen.METHODS["{name}"].Config`.'
        + "".join(f" `--preset {name}` starts from the values of that column." for name in presets),
        boxed(table(header, rows)),
    ]
    if entry["sampler"]:
        from ssl_gen.runs.catalogue import example

        sampler = type(example(module).sampler)
        parts += [
            "## Sampler",
            "How samples are drawn; `--sampler.NAME VALUE` of `sample`, `evaluate` and `export`, no training needed.",
            boxed(
                table(
                    ["setting", "default", "meaning"],
                    [
                        [f"`{each.name}`", each.default, note("; ".join(filter(None, (each.meaning, each.source))))]
                        for each in settings(sampler)
                    ],
                )
            ),
        ]
    return "\n\n".join(parts) + "\n"


def method_pages() -> dict[str, str]:
    """Every page about methods: address -> markdown."""
    from ssl_gen.methods import METHODS
    from ssl_gen.runs.catalogue import catalogue

    entries = {entry["name"]: entry for entry in catalogue("methods")}
    pages = {f"methods/{name}.md": method_page(name, METHODS[name], entry) for name, entry in entries.items()}
    parts = [
        "# Methods",
        f"{len(entries)} methods, each one file that reads like its paper. A page here is made from that file: its "
        "docstring, its equations, its settings with their sources.",
    ]
    for family, title in FAMILIES.items():
        rows = [
            [f"[`{name}`]({name}.md)", note(entry["description"]), note(entry["paper"]), abilities(entry)]
            for name, entry in entries.items()
            if entry["family"] == family
        ]
        parts += [f"## {title}", table(["name", "what it is", "paper", "what it does"], rows)]
    return {"methods/index.md": "\n\n".join(parts) + "\n"} | pages


def method_nav() -> list[Any]:
    """The navigation of these pages, by family."""
    from ssl_gen.methods import METHODS, family

    unknown = {family(name) for name in METHODS} - set(FAMILIES)
    if unknown:
        raise ValueError(f"give docs/site/pages.py a title for the families {sorted(unknown)}")
    return [
        {title: [{name: f"methods/{name}.md"} for name in METHODS if family(name) == key]}
        for key, title in FAMILIES.items()
    ]


def metrics_tables() -> str:
    """All metrics with their numbers."""
    from ssl_gen.metrics.registry import METRICS

    titles = {True: "## Measured at the end of every run", False: "## Measured when asked for"}
    parts = []
    for usual, title in titles.items():
        rows = []
        for name, metric in METRICS.items():
            if metric.usual != usual:
                continue
            for i, (number, fact) in enumerate(metric.numbers.items()):
                named = [f"`{name}`", note(metric.meaning), needs(metric.needs)] if i == 0 else ["", "", ""]
                rows.append([*named, f"`{number}`", fact.unit or "-", fact.better])
        parts += [title, table(["metric", "meaning", "needs", "number", "unit", "better"], rows)]
    return "\n\n".join(parts) + "\n"


def needs(names: tuple[str, ...]) -> str:
    return ", ".join(name.replace("_", " ") for name in names) or "-"


ROOMS = {  # of the library, with what a message from there is about
    "cli": "the commands",
    "ssl_gen": "the Python interface",
    "runs": "runs",
    "reports": "records and reports",
    "training": "training",
    "datasets": "data and masks",
    "methods": "methods",
    "graphs": "graphs",
    "networks": "networks and weights",
    "losses": "losses",
    "augmentation": "changed images",
    "metrics": "metrics",
    "evaluation": "features and evaluation",
    "core": "files and settings",
}


def templates() -> dict[str, list[str]]:
    """Room -> the messages of its UserErrors, an ellipsis for what is filled in."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "ssl_gen").rglob("*.py")):
        inside = path.relative_to(ROOT / "ssl_gen").with_suffix("").parts
        room = "ssl_gen" if inside == ("__init__",) else inside[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "UserError" and node.args:
                text = template(node.args[0])
                if text.strip("… ") and text not in found.setdefault(room, []):
                    found[room].append(text)
    return found


def template(node: ast.expr) -> str:
    """A string's text, with an ellipsis for each part that is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    return "…"


def messages() -> str:
    """All messages that a user can meet, by room."""
    parts = ["## All messages", "An ellipsis stands for what is filled in."]
    for room, texts in templates().items():
        lines = [f"- <code>{html.escape(text, quote=False)}</code>" for text in texts]
        parts += [f"### From {ROOMS[room]}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def api_pages() -> dict[str, str]:
    """The API's pages: a heading and a directive of mkdocstrings for each module."""
    pages = {}
    rows = []
    for page, (modules, text) in API.items():
        directives = [f"::: {module}" for module in modules]
        pages[f"api/{page}.md"] = "\n\n".join([f"# {page}", text, *directives]) + "\n"
        rows.append([f"[{page}]({page}.md)", text, ", ".join(f"`{module}`" for module in modules)])
    start = [
        "# API",
        "Made from the docstrings. In shapes: B batch, L labelled, U unlabelled, K classes, Z latent, F features, "
        "S seeds.",
        table(["page", "what it holds", "modules"], rows),
    ]
    return {"api/index.md": "\n\n".join(start) + "\n"} | pages


def at_root(markdown: str) -> str:
    """A file of the repository's root as a page of the site: its links to docs/ and to its neighbours mended."""
    for file, page in AT_ROOT.items():
        markdown = markdown.replace(f"]({file}", f"]({page}")
    return re.sub(r'(\]\(|src=")docs/', r"\1", markdown)
