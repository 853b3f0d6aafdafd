"""Words for "no label", and names that look the same: one list and one comparison for folders, tables and arrays."""

import unicodedata

import pytest

from ssl_gen.datasets.names import check_distinct, class_of, readable
from ssl_gen.types import UserError

NO_LABEL = ["unlabelled", "Unlabeled", "UNLABELLED", "un-labelled", "unlab", "", "  ", "-1", "-1.0", "\N{MINUS SIGN}1"]
NO_LABEL += ["nan", "NaN", "None", "NULL", "<nan>", "?", "??", "no label", "Not_Labelled"]
EITHER = ["unknown", "N/A", "NA", "-", ".", "-2", "-99", "unlabelled_images", "unlabled", "missing", "labelled"]
CLASSES = [
    "cat",
    "0",
    "1",
    "01",
    "Nancy",
    "nonesuch",
    "a, b",
    "+",
    "(",
    "!",
    "=",
    "C++",
    "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
    "inf",
    "2.5",
    "-x",
    "x?",
]


@pytest.mark.parametrize("word", NO_LABEL)
def test_a_word_for_no_label_is_no_class(word):
    assert class_of(word, "here") is None


@pytest.mark.parametrize("word", EITHER)
def test_a_word_that_may_mean_either_is_refused_with_how_to_mean_it(word):
    with pytest.raises(UserError, match=r"here: .* may mean a class or no label: write unlabelled .* if it is one"):
        class_of(word, "here")


@pytest.mark.parametrize("word", EITHER)
def test_what_the_refusal_advises_is_a_class(word):
    assert class_of(f"class {word}", "here") == f"class {word}"


@pytest.mark.parametrize("word", CLASSES)
def test_any_other_word_is_the_class_of_that_name(word):
    assert class_of(f" {word} ", "here") == word


def test_names_in_two_forms_of_unicode_are_one():
    name = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert readable(unicodedata.normalize("NFD", name)) == readable(name) == name


def test_bytes_that_are_no_utf8_and_line_breaks_are_escaped_so_that_a_name_can_be_written():
    assert readable("caf\udce9\n") == r"caf\xe9\n"
    assert readable("caf\udce9\n").encode("utf-8").isascii()


def test_names_that_read_the_same_are_not_taken_for_two():
    with pytest.raises(UserError, match="two entries that both read"):
        check_distinct(["e\N{COMBINING ACUTE ACCENT}", "\N{LATIN SMALL LETTER E WITH ACUTE}"], "there")
    check_distinct(["a", "b", "A"], "there")
