"""Decisions and calibrations show themselves in a notebook; nothing breaks out."""

from html.parser import HTMLParser
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixllm_integrations import Calibration, Decision, Prediction
from mixllm_integrations.core.markup import Element, element, html_table, written


class Reader(HTMLParser):
    """Collects tags and text as a browser would."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.attributes = [], "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def decision(name="<script>alert(1)</script>"):
    scores = {
        name: Prediction(0.8, 120.0, 0.002, score=0.6),
        "b": Prediction(0.5, 9, 0),
    }
    return Decision("d1", name, MappingProxyType(scores), 0.01)


def test_a_decision_is_a_table_of_its_candidates():
    page = decision("small")._repr_html_()
    read = Reader(page)
    assert read.tags.count("tr") == 3
    assert "small" in read.text
    assert "chosen: highest score" in read.text
    assert "<th" in page
    assert 'scope="row"' in page


def test_a_candidate_called_like_a_tag_is_text():
    page = decision()._repr_html_()
    read = Reader(page)
    assert "script" not in read.tags
    assert "<script>alert(1)</script>" in read.text


def test_a_calibration_shows_its_value_and_intervals():
    found = Calibration(
        0.02,
        0.7,
        0.001,
        0.971,
        0.25,
        (0.95, 0.99),
        (0.2, 0.3),
        "<b>",
        400,
        target_reached=True,
    )
    read = Reader(found._repr_html_())
    assert "b" not in read.tags
    for told in ("0.02 USD", "97.1%", "95.0% to 99.0%", "<b>", "400", "target reached"):
        assert told in read.text


def test_a_missed_target_is_said():
    found = Calibration(
        1, 1, 1, 0.9, 0.9, (0.8, 1), (0.8, 1), "a", 40, target_reached=False
    )
    assert "target NOT reached" in found._repr_html_()


def test_text_and_elements_keep_their_order():
    made = element("p", None, "a ", element("b", None, "c"), " d", " e", element("i"))
    assert written(made) == "<p>a <b>c</b> d e<i></i></p>"


def test_an_attribute_without_a_value_is_left_out():
    assert written(element("p", {"class": None, "id": 3})) == '<p id="3"></p>'


@given(st.text())
def test_any_text_comes_out_as_it_went_in_but_for_what_no_page_may_hold(text):
    page = written(element("p", {"title": text}, text))
    page.encode()  # no half of a pair is left
    read = Reader(page)
    assert read.tags == ["p"]
    kept = text.replace("\r\n", "\n").replace("\r", "\n")
    if kept.isprintable():
        assert read.text == kept
        assert dict(read.attributes)["title"] == text


def test_a_table_says_what_its_cells_are_heads_of():
    table = html_table("what", ["a", "b"], [["x", "1"]])
    assert isinstance(table, Element)
    assert written(table) == (
        "<table><caption>what</caption><thead><tr>"
        '<th scope="col">a</th><th scope="col">b</th></tr></thead>'
        '<tbody><tr><th scope="row">x</th><td>1</td></tr></tbody></table>'
    )


def test_a_style_cannot_be_ended_from_inside():
    assert written(element("style", None, "a > b {}")) == "<style>a > b {}</style>"
    with pytest.raises(ValueError, match="must not hold"):
        written(element("style", None, "</style><script>"))


def test_what_has_no_end_has_none():
    assert written(element("meta", {"charset": "utf-8"})) == '<meta charset="utf-8">'


def test_what_turns_a_line_or_rings_a_bell_is_replaced():
    page = written(element("p", {"title": "\u202e"}, "a\u202eb\x07\ud800"))
    assert page == '<p title="?">a?b??</p>'.replace("?", "\N{REPLACEMENT CHARACTER}")
