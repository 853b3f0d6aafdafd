"""The house of DESIGN.md, held: imports run down only, files stay short, the command starts without jax."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "ssl_gen"
FLOORS = [  # from the ground up
    {"types"},
    {"networks", "losses", "adversarial_losses", "likelihoods", "graphs", "update", "augmentation"}
    | {"datasets", "metrics"},
    {"inception_weights"},
    {"methods", "training", "features", "evaluation", "measurements"},
    {"run", "record", "setting", "fitting", "solving", "latents", "export"},
    {"cli", "ssl_gen"},  # ssl_gen/__init__.py opens every door
]
LONGEST_METHOD = 250  # lines
READERS_PATH = ("types.py", "methods/adversarial/feature_matching.py", "training/loop.py")  # one sitting: 500 lines


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


def floor(name):
    return next(level for level, parts in enumerate(FLOORS) if part(name) in parts)


def test_imports_are_seen_wherever_they_stand():
    source = "import ssl_gen.run\nfrom ssl_gen import losses, METHODS\n"
    source += "def f():\n    from ssl_gen.networks.mlp import flatten"
    assert imports_of(source, MODULES) == {"ssl_gen.run", "ssl_gen.losses", "ssl_gen", "ssl_gen.networks.mlp"}
    assert "ssl_gen.networks.mlp" in imported("ssl_gen.methods.adversarial.feature_matching")
    assert "ssl_gen.run" in imported("ssl_gen.cli")


def test_every_part_has_its_place():
    assert {part(name) for name in MODULES} == set().union(*FLOORS) | {"reports"}


def test_imports_run_down_only():
    upward = {
        (name, other)
        for name, other in edges(MODULES)
        if "reports" not in (part(name), part(other)) and floor(name) < floor(other)
    }
    assert not upward


@pytest.mark.parametrize("name", METHODS)
def test_a_method_knows_no_data_no_metric_no_loop_and_no_other_method(name):
    below = {"networks", "losses", "adversarial_losses", "likelihoods", "graphs", "update", "augmentation", "types"}
    assert {part(other) for other in imported(name)} <= below


def test_methods_are_gathered_in_one_place_alone():
    inside = {name for name, other in edges(MODULES) if other in METHODS and part(name) == "methods"}
    assert inside == {"ssl_gen.methods"}


@pytest.mark.parametrize("package", ["datasets", "metrics"])
def test_data_sets_and_metrics_know_types_alone(package):
    assert {part(other) for _, other in edges(of(package))} <= {package, "types"}


def test_types_know_nothing():
    assert not imported("ssl_gen.types")


def test_training_knows_of_data_only_which_rows_a_step_sees():
    others = {other for _, other in edges(of("training")) if part(other) != "training"}
    assert others == {"ssl_gen.datasets.batches", "ssl_gen.types"}


def test_reports_know_records_and_never_a_model():
    others = {other for _, other in edges(of("reports")) if part(other) != "reports"}
    assert others <= {"ssl_gen.metrics.statistics", "ssl_gen.types"}


def test_reports_are_asked_for_by_runs_and_commands_alone():
    assert {part(name) for name, other in edges(MODULES) if part(other) == "reports"} <= {
        "reports",
        "run",
        "latents",
        "cli",
    }


def test_the_library_needs_no_experiment_benchmark_or_test():
    outside = {"experiments", "benchmarks", "tests", "tiny"}
    found = {name for name, path in MODULES.items() if imports_of(path.read_text(), MODULES) & outside}
    assert not found


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_short(name):
    lines = len(MODULES[name].read_text().splitlines())
    assert lines <= LONGEST_METHOD


def test_the_readers_path_is_one_sitting():
    lines = sum(len((ROOT / path).read_text().splitlines()) for path in READERS_PATH)
    assert lines <= 500


@pytest.mark.parametrize("module", ["ssl_gen", "ssl_gen.cli"])
def test_importing_the_library_or_its_commands_does_not_import_jax(module):
    program = (
        f"import {module}, sys; sys.exit(any(name in sys.modules for name in ('jax', 'flax', 'optax', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT.parent).returncode == 0
