"""The benchmark of large pages: its line, and that the documentation has the setting that it measures."""

from pathlib import Path

from benchmarks import pages

HERE = Path(__file__).parents[1]


def test_a_ratio_is_that_of_two_processes_that_ran_one_after_the_other():
    seconds = iter([4.0, 2.0, 9.0, 3.0, 5.0, 5.0])
    asked = []

    def run(tunables):
        asked.append(tunables)
        return {"phase": "main", "seconds": next(seconds), "peak_mib": 100 * len(asked)}

    line = pages.line("some", run, rounds=3)
    assert asked == ["", pages.TUNED] * 3
    assert line["ratio"] == 2.0 and line["seconds_per_step"] == {"plain": 5.0, "tuned": 3.0}
    assert line["peak_mib"] == {"plain": 500, "tuned": 600}
    assert {"device", "cpu", "cores", "load", "jax", "phase"} <= line.keys()


def test_a_process_names_the_phase_whose_steps_it_timed():
    own = pages.own(pages.TINY["airbench"])
    assert own["phase"] == "main" and own["seconds"] > 0 and own["peak_mib"] > 0


def test_every_network_is_one_with_convolutions():
    networks = [getattr(case.config, "network", "unet") for case in pages.FULL.values()]
    assert set(networks) <= {"airbench", "conv", "unet"}


def test_the_documentation_has_the_setting():
    assert f"GLIBC_TUNABLES={pages.TUNED}" in (HERE / "docs" / "own_images.md").read_text()
