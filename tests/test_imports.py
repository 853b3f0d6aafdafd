"""The house of DESIGN.md, held: imports run down only, files stay short, the command starts without jax."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "ssl_gen"
FLOORS = [  # from the ground up
    {"types"},
    {"core"},
    {"graphs", "networks", "losses", "augmentation", "datasets", "metrics"},
    {"reports", "methods", "training", "evaluation"},
    {"runs"},
    {"cli", "ssl_gen"},  # ssl_gen/__init__.py opens every door
]
MODULES_AT_THE_TOP, PACKAGES_AT_THE_TOP = 3, 13  # at most
LONGEST_METHOD = 270  # lines
READERS_PATH = (  # one sitting
    "types.py",
    "core/players.py",
    "core/gradient.py",
    "methods/adversarial/feature_matching.py",
    "training/loop.py",
)
ONE_SITTING = 590  # lines
# Machinery of linen and of the framework, as patterns; `{"params": keys[2], "noise": ...}` names random streams.
NOT_ON_A_PAGE = (r"\.apply\(", r'\{"params": (?!keys\[)', r"\bmutable=", r"\bstate\.(step|key)\b")


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
METHODS = [name for name, path in MODULES.items() if name.startswith("ssl_gen.methods.") and path.name != "__init__.py"]


def imports_of(source, modules):
    """Modules named by any import of a text, also within functions; `from a import b` names a.b where that is one."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else node.module for name in inner}
    return found


@functools.cache
def imported(name):
    """What a module of the library imports from the library."""
    return {other for other in imports_of(MODULES[name].read_text(), MODULES) if other.split(".")[0] == "ssl_gen"}


def part(name):
    """The file or folder of ssl_gen that a module belongs to."""
    return name.split(".")[1] if "." in name else name


def of(*parts):
    return [name for name in MODULES if part(name) in parts]


def edges(names):
    return {(name, other) for name in names for other in imported(name)}


def known_to(*parts):
    """The parts that these parts import from, themselves left out."""
    return {part(other) for _, other in edges(of(*parts))} - {*parts}


def floor(name):
    return next(level for level, parts in enumerate(FLOORS) if part(name) in parts)


def circle(graph):
    """Names of a {name: names that it needs} that need each other, [] where none do."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_imports_are_seen_wherever_they_stand():
    source = "import ssl_gen.cli\nfrom ssl_gen import types, METHODS\n"
    source += "def f():\n    from ssl_gen.networks.mlp import flatten"
    assert imports_of(source, MODULES) == {"ssl_gen.cli", "ssl_gen.types", "ssl_gen", "ssl_gen.networks.mlp"}
    assert "ssl_gen.networks.feature_matching" in imported("ssl_gen.methods.adversarial.feature_matching")
    assert "ssl_gen.runs.load" in imported("ssl_gen.cli.commands")


def test_a_circle_is_found_where_there_is_one():
    assert circle({"a": {"b"}, "b": {"c"}}) == []
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


def test_every_part_has_its_place():
    assert {part(name) for name in MODULES} == set().union(*FLOORS)


def test_the_top_of_the_house_is_a_page_of_names():
    """Every folder with Python counts, also one that lacks an __init__.py."""
    assert len(list(ROOT.glob("*.py"))) <= MODULES_AT_THE_TOP
    assert len([path for path in ROOT.iterdir() if list(path.rglob("*.py"))]) <= PACKAGES_AT_THE_TOP


def test_every_folder_of_modules_is_a_package():
    assert not {path.parent for path in MODULES.values() if not (path.parent / "__init__.py").exists()}


def test_imports_run_down_only():
    assert not {(name, other) for name, other in edges(MODULES) if floor(name) < floor(other)}


def test_no_modules_import_each_other_in_a_circle():
    assert circle({name: imported(name) - {name} for name in MODULES}) == []


def test_no_packages_import_each_other_in_a_circle():
    assert circle({name: known_to(name) for name in map(part, MODULES)}) == []


@pytest.mark.parametrize("name", METHODS)
def test_a_method_knows_no_data_no_metric_no_loop_and_no_other_method(name):
    below = {"core", "losses", "networks", "augmentation", "graphs", "types"}
    assert {part(other) for other in imported(name)} <= below


def test_methods_are_gathered_in_one_place_alone():
    inside = {name for name, other in edges(MODULES) if other in METHODS and part(name) == "methods"}
    assert inside == {"ssl_gen.methods"}


@pytest.mark.parametrize("package", ["datasets", "metrics"])
def test_data_sets_and_metrics_know_types_and_core_alone(package):
    assert known_to(package) <= {"core", "types"}


def test_types_know_nothing():
    assert not imported("ssl_gen.types")


def test_training_knows_of_data_only_rows_and_the_store_that_fetches_them():
    others = {other for _, other in edges(of("training"))}
    assert {other for other in others if part(other) not in ("training", "core", "types")} == {
        "ssl_gen.datasets.batches",
        "ssl_gen.datasets.store",
    }


def test_reports_know_records_metrics_and_core_and_never_a_model():
    assert known_to("reports") <= {"metrics", "core", "types"}


def test_reports_are_asked_for_by_runs_and_commands_alone():
    assert {name for name in map(part, MODULES) if "reports" in known_to(name)} <= {"runs", "cli"}


def test_the_library_needs_no_experiment_benchmark_or_test():
    outside = {"experiments", "benchmarks", "tests", "tiny"}
    found = {name for name, path in MODULES.items() if imports_of(path.read_text(), MODULES) & outside}
    assert not found


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_short(name):
    lines = len(MODULES[name].read_text().splitlines())
    assert lines <= LONGEST_METHOD


@pytest.mark.parametrize("name", METHODS)
def test_a_method_page_holds_the_method_and_no_machinery(name):
    text = MODULES[name].read_text()
    assert not [found for pattern in NOT_ON_A_PAGE for found in re.findall(pattern, text)]


def test_machinery_on_a_page_is_seen():
    """As version 0.1 had it."""
    page = 'network.apply({"params": params, **stats}, x, mutable=["batch_stats"]); fold_in(state.key, state.step)'
    assert all(re.search(pattern, page) for pattern in NOT_ON_A_PAGE)


def test_the_readers_path_is_one_sitting():
    lines = sum(len((ROOT / path).read_text().splitlines()) for path in READERS_PATH)
    assert lines <= ONE_SITTING


def test_importing_the_library_or_its_commands_does_not_import_jax():
    heavy = "('jax', 'flax', 'optax', 'sklearn')"
    program = f"import ssl_gen, ssl_gen.cli, sys; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT.parent).returncode == 0
