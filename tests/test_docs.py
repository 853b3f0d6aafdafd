"""The site: equations keep their text, pages are made of the code, and a broken link is found."""

import html
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from browser import PROGRAM, chromium

from docs.site import check, equations, pages
from ssl_gen.methods import METHODS
from ssl_gen.runs.catalogue import example

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def without_italics(text):
    return re.sub("</?i>", "", text)


def plain(rendered):
    """The text of HTML: tags stripped, entities undone."""
    return html.unescape(re.sub("<[^>]*>", "", rendered))


def dropped(text, rendered):
    """What a rendering leaves out of a text; fails where it adds or changes anything."""
    left, out = iter(text), []
    for character in rendered:
        for original in left:
            if original == character:
                break
            out.append(original)
        else:
            pytest.fail(f"{character!r} of {rendered!r} is not in the text")
    return out + list(left)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("x_t", "x<sub>t</sub>"),
        ("2^i", "2<sup>i</sup>"),
        ("|d|^2", "|d|<sup>2</sup>"),
        ("(3^8 - 1)", "(3<sup>8</sup> - 1)"),
        ("E_(x,y) log p(y | x)", "E<sub>x,y</sub> log p(y | x)"),
        ("E_q(z|x) log p(x | z)", "E<sub>q(z|x)</sub> log p(x | z)"),
        ("L_D = D_y(y)", "L<sub>D</sub> = D<sub>y</sub>(y)"),
        ("s^2(x)", "s<sup>2</sup>(x)"),
        ("m_j^2", "m<sub>j</sub><sup>2</sup>"),
        ("D^-1/2 W", "D<sup>-1/2</sup> W"),
        ("W^T x", "W<sup>T</sup> x"),
        ("q^(1/temperature)", "q<sup>1/temperature</sup>"),
        ("c_(a_i)", "c<sub>a<sub>i</sub></sub>"),
        ("(1 - r)^(step + 1)", "(1 - r)<sup>step + 1</sup>"),
        ("sum_k exp l_k", "sum<sub>k</sub> exp l<sub>k</sub>"),
        ("warm_up and squared_error", "warm_up and squared_error"),
        ("x < y, a_", "x &lt; y, a_"),
        ("(L F)_i = 0", "(L F)<sub>i</sub> = 0"),
    ],
)
def test_sub_and_superscripts_by_hand(text, rendered):
    assert without_italics(equations.scripts(text)) == rendered


def test_letters_are_in_italics_but_an_article_and_the_expectation_are_not():
    assert equations.italics("E x of a class") == "E <i>x</i> of a class"
    assert equations.italics("a(t) L-BFGS, the student's") == "<i>a</i>(<i>t</i>) L-BFGS, the student's"


def test_the_columns_of_a_block_stay_columns():
    block = "L_sup = E log p     supervised\nL     = E f         all"
    areas = re.findall(r'grid-area:([\d/]+)">([^<]*)', equations.equation(block))
    assert [area for area, _ in areas] == ["1/1/2/2", "1/2/2/3", "1/3/2/4", "2/1/3/2", "2/2/3/3", "2/3/3/4"]


def test_a_word_that_misses_its_column_by_a_letter_is_in_it():
    block = "a   one     first\nb   two     second\nc   three    third"
    assert re.findall(r'grid-area:([\d/]+)">third', equations.equation(block)) == ["3/3/4/4"]


@pytest.mark.parametrize("name", METHODS)
def test_no_text_of_a_docstring_is_lost(name):
    """But for the marks of sub- and superscripts, each with the parentheses around it, and of code."""
    docstring = inspect.cleandoc(METHODS[name].__doc__).replace("`", "")
    text, shown = ("".join(each.split()) for each in (docstring, plain(equations.render(docstring))))
    left_out = "".join(dropped(text, shown))
    assert re.fullmatch(r"(?:[_^]|[_^]\(|\))*", left_out) and left_out.count("(") == left_out.count(")")


def test_blocks_of_python_are_code_lists_are_lists_and_others_equations():
    code, listed, maths = (
        equations.render('Do\n\n    run = train("m2", steps=3)'),
        "a    one\nb    two",
        "z = V (x - m)",
    )
    assert code == '<p>Do</p>\n\n<pre><code>run = train("m2", steps=3)</code></pre>'
    assert equations.render(listed).startswith('<pre class="equation list"') and "<i>" not in equations.render(listed)
    assert equations.render(f"    {maths}").startswith('<pre class="equation"') and not equations.is_code(maths)


def test_prose_has_code_and_links_to_arxiv():
    rendered = equations.prose("See `a_b`, arXiv:1606.03498.")
    assert rendered == 'See <code>a_b</code>, <a href="https://arxiv.org/abs/1606.03498">arXiv:1606.03498</a>.'


@pytest.mark.parametrize("name", METHODS)
def test_a_settings_table_has_every_setting_with_what_its_comment_says(name):
    module = METHODS[name]
    source = inspect.getsource(module)
    fields = list(module.Config.__dataclass_fields__)
    found = pages.settings(module.Config)
    assert [each.name for each in found] == fields
    for each in found:
        line = next(line for line in source.splitlines() if line.strip().startswith(f"{each.name}: "))
        comment = line.split("  # ")[1]
        meaning = each.meaning.split("one of ")[0].rstrip("; ")
        assert "; ".join(part for part in (meaning, each.source) if part) == comment


@pytest.mark.parametrize("name", METHODS)
def test_a_samplers_table_has_every_setting_inherited_ones_too(name):
    sampler = type(example(METHODS[name]).sampler)
    found = pages.settings(sampler)
    assert [each.name for each in found] == list(sampler.__dataclass_fields__)
    assert all(each.meaning for each in found)


def test_every_method_has_a_page_and_a_place_in_the_navigation():
    made = pages.method_pages()
    listed = json.dumps(pages.method_nav())
    assert all(f"methods/{name}.md" in made and f'"methods/{name}.md"' in listed for name in METHODS)
    assert all(f"({name}.md)" in made["methods/index.md"] for name in METHODS)


def test_every_metric_is_in_the_tables():
    from ssl_gen.metrics.registry import METRICS, NUMBERS

    tables = pages.metrics_tables()
    assert all(f"`{name}`" in tables for name in (*METRICS, *NUMBERS))


def test_the_messages_that_troubleshooting_explains_are_those_of_the_library():
    quoted = re.findall(r"^### `(.*)`$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    messages = {text for texts in pages.templates().values() for text in texts}
    assert len(quoted) > 20 and not set(quoted) - messages


def test_every_room_of_the_library_has_a_title_for_its_messages():
    assert set(pages.templates()) <= set(pages.ROOMS)


def test_files_of_the_root_link_to_pages_of_the_site():
    text = '[a](docs/results.md#x) [b](CONTRIBUTING.md) <img src="docs/a.svg"> `docs/quickstart.ipynb`'
    expected = '[a](results.md#x) [b](contributing.md) <img src="a.svg"> `docs/quickstart.ipynb`'
    assert pages.at_root(text) == expected


def test_links_between_the_files_of_the_repository_lead_somewhere():
    for file in [*ROOT.glob("*.md"), *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text()):
            made = target.startswith(("methods/", "api/"))  # by the site
            assert made or (file.parent / target).exists(), f"{file.name}: {target}"


def site(tmp_path, **files):
    for name, text in files.items():
        (tmp_path / f"{name}.html").write_text(text)
    return check.problems(tmp_path)


def test_a_sound_site_has_no_problems(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    a = '<h1 id="top"></h1><a href="b.html#here">b</a><a href="#top">up</a><a href="https://arxiv.org/abs/1">1</a>'
    assert site(tmp_path, a=a + '<img src="x.png">', b='<p id="here"></p>') == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ('<a href="c.html">', "is no file of the site"),
        ('<a href="b.html#there">', "is no anchor there"),
        ('<a href="#there">', "is no anchor there"),
        ('<img src="y.png">', "is no file of the site"),
        ('<script src="https://example.org/x.js"></script>', "would be fetched from elsewhere"),
        ('<link rel="stylesheet" href="https://example.org/x.css">', "would be fetched from elsewhere"),
    ],
)
def test_what_is_broken_is_named(tmp_path, broken, said):
    (problem,) = site(tmp_path, a=broken, b='<p id="here"></p>')
    assert problem.startswith("a.html: ") and problem.endswith(said)


def test_the_citation_says_the_version_and_the_licence_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert {"cff-version", "message", "title", "authors", "version"} <= set(citation)
    assert f'version = "{citation["version"]}"' in pyproject and f'license = "{citation["license"]}"' in pyproject
    assert f"## {citation['version']}" in (ROOT / "CHANGELOG.md").read_text()


QUIET = {"NO_MKDOCS_2_WARNING": "1"}  # what mkdocs-material says of mkdocs 2
SPILLED = """[...document.querySelectorAll("article *")].filter(
    e => e.getBoundingClientRect().right > innerWidth + 1 && !e.parentElement.closest("pre, .md-typeset__scrollwrap")
).map(e => e.outerHTML.slice(0, 80))"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="`make docs` installs mkdocs")
@pytest.mark.skipif(PROGRAM is None, reason="no Chromium")
def test_the_site_builds_without_a_warning_and_nothing_sticks_out_of_a_page(tmp_path):
    """On a desk and on a telephone; and a browser fetches nothing from elsewhere."""
    built = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", built]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | QUIET)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    found = sorted(path for path in built.rglob("*.html") if path.name != "404.html")
    assert len(found) > len(METHODS)
    with chromium(tmp_path / "profile") as browser:
        for path in found:
            for width in (1280, 400):
                browser.open(path, width)
                assert browser.told("document.documentElement.scrollWidth <= innerWidth"), (path.name, width)
                assert browser.told(SPILLED) == [], (path.name, width)
                assert not [url for url in browser.requested() if url.startswith("http")] + browser.complaints()
