"""docs/quickstart.ipynb does what it shows, with fewer steps than a reader takes."""

from pathlib import Path

import nbclient
import nbformat
import pytest
from tiny import flags_of_one_device

ROOT = Path(__file__).parents[1]
FEW = "STEPS, SEEDS = 10, 2"  # one step of warm-up
DEMO = """
import dataclasses
from experiments.digits_demo import CLASSIFIER, MOVED, TRIPLE_GAN
assert dataclasses.replace(config, steps=TRIPLE_GAN.steps) == TRIPLE_GAN
assert dataclasses.replace(alone, steps=CLASSIFIER.steps) == dataclasses.replace(CLASSIFIER, augmentation=MOVED)
"""
PATIENCE = 600  # seconds for a cell; the slowest takes some 20 on an idle core


@pytest.fixture
def notebook():
    return nbformat.read(ROOT / "docs" / "quickstart.ipynb", as_version=4)


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_is_kept_without_outputs(notebook):
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code(notebook))


def test_it_runs_from_beginning_to_end_with_the_settings_of_the_demo(notebook, tmp_path, monkeypatch):
    (settings,) = (cell for cell in code(notebook) if cell.source.startswith("STEPS, SEEDS ="))
    settings.source = FEW
    notebook.cells.append(nbformat.v4.new_code_cell(DEMO))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the kernel works in an empty folder
    monkeypatch.setenv("XLA_FLAGS", flags_of_one_device())  # as a reader's machine has
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    nbclient.NotebookClient(notebook, timeout=PATIENCE, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert " ± " in said and "(2)" in said and "error less that of the floor" in said and "test error" in said
    assert sum("image/png" in output.data for output in outputs if output.output_type == "execute_result") == 3
    assert (tmp_path / "runs" / "quickstart" / "triple_gan" / "report.html").is_file()
