"""A figure and its interval as text."""

import pytest

from chestxray.evaluation.figure_format import in_sentence, number, span, with_interval

FIGURE = {"value": 0.9312, "low": 0.9, "high": 0.9548}


@pytest.mark.parametrize(
    ("figure", "options", "text"),
    [
        (FIGURE, {}, "0.931 (0.900 to 0.955)"),
        (FIGURE, {"digits": 2}, "0.93 (0.90 to 0.95)"),
        (FIGURE, {"digits": 2, "level": "95%"}, "0.93 (95% interval 0.90 to 0.95)"),
        (FIGURE, {"signed": True}, "+0.931 (0.900 to 0.955)"),
        ({"value": -0.02, "low": -0.1, "high": 0.06}, {"signed": True}, "-0.020 (-0.100 to 0.060)"),
        ({"value": 0.0, "low": 0.0, "high": 0.0}, {}, "0.000 (0.000 to 0.000)"),
        ({"value": 0.5, "low": None, "high": 0.6}, {"level": "95%"}, "0.500"),
        ({"value": 0.5}, {}, "0.500"),
        ({"value": None, "low": None, "high": None}, {}, "not available"),
        ({}, {"absent": "-"}, "-"),
        (None, {}, "not available"),
    ],
)
def test_a_value_with_its_interval(figure, options, text):
    assert with_interval(figure, **options) == text


def test_parts():
    assert in_sentence(FIGURE, "90%") == "0.93 (90% interval 0.90 to 0.95)"
    assert (number(None), number(0.12345, 1)) == ("not available", "0.1")
    assert (span(None), span({"low": 0.1, "high": None}), span(FIGURE, 1)) == ("", "", "0.9 to 1.0")
