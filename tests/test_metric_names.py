"""Full names of metrics: what is asked for is found, by the facts that each metric gives of its numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from ssl_gen.metrics import registry
from ssl_gen.metrics.metric import Number
from ssl_gen.metrics.registry import METRICS, NUMBERS
from ssl_gen.reports import tables
from ssl_gen.reports.compare import entries

TRACKED = sorted(
    {
        name
        for path in Path(__file__).parents[1].joinpath("experiments").glob("*.json")
        for final in json.loads(path.read_text()).get("rows", {}).values()
        for name in final["metrics"]
    }
)


def by_words(metric: str, names: Sequence[str]) -> list[str]:
    """What is asked for, by the rule of version 0.1: words that make another metric, then anything up to a count."""
    others = ("infinity", "standard_error", "and_labelled")
    rest = {name: name.removeprefix(f"{metric}_") for name in names if name.startswith(f"{metric}_")}
    made = {name for name, words in rest.items() if words.isdecimal() or re.search(r"n=\d+$", words)}
    made -= {name for name in made if rest[name].startswith(tuple(f"{other}_" for other in others))}
    return [name for name in names if name == metric or name in made]


def test_metrics_are_found_in_all_records_as_before():
    beginnings = {name[:place] for name in TRACKED for place in [*places_of(name, "_"), len(name)]}
    asked = beginnings | set(METRICS) | set(NUMBERS)
    assert len(TRACKED) > 50 and len(asked) > 150
    for metric in asked:
        assert tables.matching(metric, TRACKED) == by_words(metric, TRACKED), metric
    assert by_words("fid", TRACKED) and by_words("copying", TRACKED) and by_words("iwae", TRACKED) == ["iwae_5000"]


def places_of(text: str, letter: str) -> list[int]:
    return [place for place, each in enumerate(text) if each == letter]


def test_other_settings_of_the_sampler_make_another_metric():
    plain = "fid_random-convnet-468b5ddd_ref=test_n=1000"
    cool, many = f"{plain}_temperature=0.5", f"{plain}_temperature=0.5_n_steps=50"
    names = [plain, cool, many, "agreement_svc", "agreement_svc_truncation=1"]
    assert tables.matching("fid", names) == [plain]
    assert tables.matching("agreement_svc", names) == ["agreement_svc"]
    assert tables.matching("fid_temperature=0.5", names) == [cool]
    assert tables.matching("fid_temperature=0.5_n_steps=50", names) == [many]
    assert tables.matching(cool, names) == [cool]
    assert tables.matching("agreement_svc_truncation=1", names) == ["agreement_svc_truncation=1"]
    assert tables.headed("agreement_svc_truncation=1") == "agreement_svc_truncation=1 (%)"


def test_a_name_is_taken_apart():
    assert tables.parsed("kid_standard_error_net_ref=test_n=100") == ("kid_standard_error", "net_ref=test_n=100", "")
    assert tables.parsed("fid_a_b-3f_ref=test_n=10_kind=ddim_x") == ("fid", "a_b-3f_ref=test_n=10", "kind=ddim_x")
    assert tables.parsed("deviation_ratio_temperature=2") == ("deviation_ratio", "", "temperature=2")
    assert tables.parsed("iwae_5000") == ("iwae", "5000", "")
    assert tables.parsed("nothing_known_n=3") == ("nothing_known_n=3", "", "")


def test_every_number_of_every_metric_says_what_it_is():
    for name, metric in METRICS.items():
        assert metric.numbers and all(isinstance(each, str) for each in metric.numbers), name
    columns = [number.column for number in NUMBERS.values() if number.column is not None]
    assert sorted(columns) == list(range(len(columns)))
    assert entries.usual() == [
        "error",
        "agreement",
        "judge_accuracy",
        "agreement_svc",
        "judge_accuracy_svc",
        "fid",
        "cas",
        "coverage",
    ]
    assert sum(len(metric.numbers) for metric in METRICS.values()) == len(NUMBERS)  # no name twice
    assert {tables.parsed(name).number for name in TRACKED} <= set(NUMBERS)


def test_the_registry_knows_a_number_by_the_longest_name_that_a_full_name_begins_with():
    assert registry.number_name("fid_infinity_pixels_ref=test_n=10") == "fid_infinity"
    assert registry.number_name("error_median_last_20") == "error_median_last"
    assert registry.number_name("errors") == "errors" and registry.number_of("errors") == Number()
    assert registry.number_of("elbo_n=500") == METRICS["elbo"].numbers["elbo"]


BETTER = {  # which way each number points, written down here and nowhere taken from the code
    "error": "lower",
    "error_median_last": "lower",
    "error_validation": "lower",
    "error_best_validation": "lower",
    "error_best_test": "lower",
    "first_error": "lower",
    "balanced_error": "lower",
    "worst_class_error": "lower",
    "nll": "lower",
    "calibration_error": "lower",
    "auroc": "higher",
    "agreement_svc": "higher",
    "judge_accuracy_svc": "higher",
    "agreement": "higher",
    "judge_accuracy": "higher",
    "deviation_ratio": "neither",  # 1 is best
    "fid": "lower",
    "fid_infinity": "lower",
    "intra_fid": "lower",
    "kid": "lower",
    "kid_standard_error": "neither",
    "precision": "higher",
    "recall": "higher",
    "density": "higher",
    "coverage": "higher",
    "inception_score": "higher",
    "copying_labelled": "neither",  # 0 is best
    "copying_unlabelled": "neither",
    "nearest_ratio_labelled": "neither",  # 1 is best
    "nearest_ratio_unlabelled": "neither",
    "cas": "higher",
    "cas_and_labelled": "higher",
    "elbo": "higher",
    "elbo_bits_per_dimension": "lower",
    "iwae": "higher",
    "iwae_5000_bits_per_dimension": "lower",
    "reconstruction_mse": "lower",
    "reconstruction_psnr": "higher",
    "reconstruction_ssim": "higher",
    "imputation": "lower",
    "imputation_mean_image": "neither",  # of no method
}


def test_a_number_points_the_way_that_is_better():
    assert {name: number.better for name, number in NUMBERS.items()} == BETTER


def test_a_full_name_points_the_way_of_its_number():
    assert registry.number_of("iwae_5000").better == "higher"
    assert registry.number_of("iwae_5000_bits_per_dimension").better == "lower"
    assert registry.number_of("elbo_bits_per_dimension_n=500").better == "lower"
    assert registry.number_of("kid_standard_error_pixels_ref=test_n=10").better == "neither"
    assert registry.number_of("fid_infinity_pixels_ref=test_n=10").better == "lower"
    assert registry.number_of("cas_and_labelled_convnet_n=100").better == "higher"
