"""Colours of curves and classes can be told apart by who sees no red, no green or no blue."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from ssl_gen.reports.charts import efficiency, scatter, style

# What is left of linear sRGB without the long, the middle or the short cones: Machado, Oliveira and Fernandes 2009, "A
# physiologically-based model for simulation of color vision deficiency", severity 1.0.
VISIONS = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # IEC 61966-2-1
PIXEL = 0.0213  # degrees of the eye's view, of CSS's reference pixel
LIKE = ((214, 39, 40), (44, 160, 44))  # the red and green of a common palette, alike without the middle cones


def lab(colour: style.Colour, vision: np.ndarray) -> np.ndarray:
    """CIELAB (3,) of an sRGB colour as a vision sees it, on white paper."""
    share = np.array(colour) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(vision @ linear, 0, 1) / TO_XYZ.sum(1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def noticed(a: style.Colour, b: style.Colour, vision: np.ndarray) -> float:
    """How far apart two colours are in marks as small as ours: at 1, half of all people notice that they differ.

    Source: Stone, Szafir and Setlur 2014, "An engineering model for color difference as a function of size": the least
    noticeable differences in L, a and b at a visual angle s. Theirs went down to a third of a degree; ours are smaller.
    """
    s = 2 * efficiency.MARKER * PIXEL
    least = 0.5 * np.array([10.16 + 1.50 / s, 10.68 + 3.08 / s, 10.70 + 5.74 / s])
    return float(np.linalg.norm((lab(a, vision) - lab(b, vision)) / least))


@pytest.mark.parametrize("vision", VISIONS)
def test_curves_and_classes_differ_in_colour_from_each_other_and_from_paper(vision):
    for a, b in itertools.combinations([*scatter.COLOURS, (255, 255, 255)], 2):
        assert noticed(a, b, VISIONS[vision]) >= 1, (a, b)


@pytest.mark.parametrize("vision", VISIONS)
def test_test_and_validation_differ_in_colour_on_light_and_dark_pages(vision):
    found = {
        name: [tuple(bytes.fromhex(code)) for code in re.findall(rf"--{name}:#([0-9a-f]{{6}})", style.SHEET)]
        for name in ("first", "second")
    }
    assert len(found["first"]) == len(found["second"]) == 2
    for first, second in zip(found["first"], found["second"], strict=True):
        assert noticed(first, second, VISIONS[vision]) >= 1


def test_a_palette_that_is_unfit_would_be_found():
    assert noticed(*LIKE, VISIONS["all cones"]) > 5 and noticed(*LIKE, VISIONS["deuteranopia"]) < 1
    assert np.allclose(lab((255, 255, 255), VISIONS["all cones"]), [100, 0, 0], atol=0.1)
