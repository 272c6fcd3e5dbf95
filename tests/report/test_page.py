"""The page: all sections, nothing from outside, nothing that breaks out."""

import json
import math
import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from mixllm_integrations.report.full import RecordedCurve, make_report
from mixllm_integrations.report.page.axes import (
    Scale,
    linear_ticks,
    log_ticks,
    money,
)
from mixllm_integrations.report.traffic import read_traffic
from mixllm_integrations.store.sql import SQLStore

SECTIONS = [
    *("glance", "curve", "shares", "latency", "domains", "calibration", "drift"),
    *("exploration", "regret", "notes"),
]
EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'
RECORDED = RecordedCurve(
    source="labels.jsonl",
    lines=(
        ("the router at other λ", "ours", ((0.001, 0.6), (0.002, 0.8))),
        ("random mix", "mix", ((0.001, 0.5), (0.009, 0.9))),
        ("oracle", "bound", ((0.0005, 0.95),)),
        ("nothing", "bound", ()),
    ),
    points=(("small", 0.001, 0.5), ("large", 0.009, 0.9)),
    now=(0.0015, 0.7),
    queries=123,
)


class Outline(HTMLParser):
    """What a page is made of."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.ids, self.links, self.text = [], [], [], ""
        self.tables, self.images = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        if tag == "section":
            self.ids.append(given["id"])
        if tag == "svg":
            self.images.append(given)
        self.links += [v for k, v in attrs if k in ("href", "src", "srcset", "action")]
        assert not [k for k in given if k.startswith("on") or k == "style"], given

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def week(small_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("week")
    url = small_world.write_log(f"sqlite:///{folder}/log.db", folder=folder / "router")
    with SQLStore(url) as store:
        return make_report(read_traffic(store), source=url, recorded=RECORDED)


@pytest.fixture(scope="module")
def page(week, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(week.to_html(), encoding="utf-8")
    return file


@pytest.fixture
def evil(book):
    """A log whose every name is an attack."""
    for place in range(40):
        scores = {
            "candidates": [EVIL, "large"],
            "quality": [0.5, 0.8],
            "cost": [0.001, 0.005],
            "uncertainty": [0.1, 0.2],
            "waiting_penalty": [0.0, 0.0],
        }
        named = (EVIL, "large")[place % 2]
        about = {"handed_over": {"domain": f"</td>{EVIL}"}, "scores": scores}
        book.decide(f"{EVIL}{place}", named, explored=place % 5 == 0, **about)
        payload = {"cost": 0.001, "latency_seconds": 0.5, "error": None}
        book.write("outcome", f"{EVIL}{place}", payload)
        book.judge(f"{EVIL}{place}", float(place % 3 == 0))
    book.write("drift", f"{EVIL}1", {"candidate": EVIL, "quantity": EVIL})
    return make_report(read_traffic(book), source=EVIL)


def test_a_page_has_all_sections_in_their_order(week):
    found = Outline(week.to_html())
    assert found.ids == [*SECTIONS[:2], "recorded", *SECTIONS[2:]]
    assert found.tags.count("h1") == 1
    assert found.tags.count("h2") == len(found.ids)
    assert found.tags.count("figure") == 5
    assert found.tags.count("figcaption") == 5
    assert found.tags.count("caption") == found.tags.count("table")


def test_every_drawing_says_what_it_shows_and_comes_in_two_sizes(week):
    images = Outline(week.to_html()).images
    assert len(images) == 10
    assert all(image["role"] == "img" and image["aria-label"] for image in images)
    assert [i["class"] for i in images] == ["chart wide", "chart narrow"] * 5


def test_a_page_asks_for_nothing_from_outside(week):
    found = Outline(week.to_html())
    assert found.links == ["data:,"]
    assert "script" not in found.tags
    assert "url(" not in week.to_html()
    assert "@import" not in week.to_html()


def test_its_policy_forbids_what_it_does_not_need(week):
    (policy,) = re.findall(r'Security-Policy" content="([^"]*)"', week.to_html())
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "script-src" not in policy
    (live,) = re.findall(r'Policy" content="([^"]*)"', week.to_html(live=True))
    assert "script-src 'sha256-" in live
    assert "connect-src 'self'" in live


def test_the_figures_are_on_the_page(week):
    text = Outline(week.to_html()).text
    found = week.comparison
    assert f"{found.saved.value:.0%}" in text
    assert "always asking large" in text
    assert "λ × 2 would cost" in text
    assert "quality fell by about 0.31 over its last 40 answers" in text
    assert "123 queries of labels.jsonl" in text
    for row in week.domains:
        assert row.name in text
    for regret in week.regrets:
        assert regret.decision_id[:12] in text
    assert "Regret is an estimate" in text
    for row in week.overview.candidates:
        quality = week.quality_of[row.name]
        assert f"{quality.value:.1%} ({quality.low:.1%} to {quality.high:.1%})" in text


def test_whatever_candidates_are_called_is_text(evil):
    page = evil.to_html()
    found = Outline(page)
    assert "script" not in found.tags
    assert "img" not in found.tags
    assert found.text.count("alert(1)") > 5
    assert found.ids == SECTIONS


def test_an_empty_log_makes_a_page_that_says_so(book):
    report = make_report(read_traffic(book), reference="anybody")
    found = Outline(report.to_html())
    assert found.ids == SECTIONS
    assert "svg" not in found.tags
    assert "there is no decision in the log" in found.text
    json.dumps(report.to_json(), allow_nan=False)


@pytest.mark.parametrize("answered", [True, False])
def test_one_candidate_and_no_feedback_make_a_page(book, answered):
    scores = {
        "candidates": ["only"],
        "quality": [0.5],
        "cost": [0.0],
        "uncertainty": [0.1],
        "waiting_penalty": [0.0],
    }
    book.decide("d", "only", scores=scores, propensity=1.0)
    if answered:
        book.answer("d", cost=0.0)
    report = make_report(read_traffic(book))
    found = Outline(report.to_html())
    assert found.ids == SECTIONS
    assert "nobody has judged an answer yet" in found.text
    json.dumps(report.to_json(), allow_nan=False)


def test_a_log_from_before_scores_were_written_makes_a_page(book):
    for place in range(5):
        book.decide(f"d{place}", scores=..., explored=place == 0)
        book.answer(f"d{place}")
        book.judge(f"d{place}", 1.0)
    report = make_report(read_traffic(book))
    assert report.comparison is None
    text = Outline(report.to_html()).text
    assert "No comparison: no decision in the log can be replayed" in text
    assert "was not logged" in text


def test_what_could_not_be_read_is_in_the_small_print(book):
    book.decide("d")
    book.judge("nobody", 1.0)
    book.write("decision", "broken", {})
    text = Outline(make_report(read_traffic(book)).to_html()).text
    assert "1 events speak of decisions that are not here" in text
    assert "1 events could not be read" in text


def test_a_clear_change_of_quality_is_said_as_such(book):
    for place in range(200):
        name = ("small", "large")[place % 2]
        book.decide(f"d{place}", name)
        book.answer(f"d{place}", cost={"small": 0.001, "large": 0.005}[name])
        book.judge(f"d{place}", float(name == "large"))
    text = Outline(make_report(read_traffic(book)).to_html()).text
    # Half were good and cost 0.003; all would have been, for 0.005.
    assert "λ × 2 would cost 67% more and be 100.0% better." in text
    assert "λ × 1/2 would cost 67% less and be 100.0% worse." in text


def test_a_dear_log_is_told_as_such(book):
    for place in range(20):
        book.decide(f"d{place}", ("small", "large")[place % 2])
        book.answer(f"d{place}", cost=(0.001, 0.005)[place % 2])
    report = make_report(read_traffic(book), reference="small")
    assert "spent more" in Outline(report.to_html()).text


def test_a_report_shows_itself_in_a_notebook_behind_glass(week):
    frame = week._repr_html_()
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append((tag, dict(attrs)))
    parser.feed(frame)
    ((tag, given),) = tags  # it is all in one attribute
    assert (tag, given["sandbox"]) == ("iframe", "")
    assert Outline(given["srcdoc"]).tags.count("h1") == 1


def test_all_figures_go_into_json(week):
    told = json.loads(json.dumps(week.to_json(), allow_nan=False))
    assert told["comparison"]["reference"] == "large"
    assert told["overview"]["total"]["decisions"] == 300 - told["overview"]["unmatched"]
    assert datetime.fromisoformat(told["made"]).tzinfo is not None
    assert len(told["regrets"]) == 20


def test_a_page_is_small_and_the_same_for_the_same_figures(week, book):
    assert len(week.to_html()) < 200_000
    at = datetime(2026, 7, 1, tzinfo=UTC)
    pages = {make_report(read_traffic(book), made=at).to_html() for _ in range(2)}
    assert len(pages) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_it_without_complaint_and_nothing_sticks_out(
    browser, page, width, scheme
):
    browser.show(page.as_uri(), width=width, scheme=scheme)
    assert browser.complaints == []
    assert browser.requests == [page.as_uri()]
    assert browser.value("document.documentElement.scrollWidth") == width
    shown = browser.value(
        "[...document.querySelectorAll('svg')].filter(s => s.clientWidth > 0)"
        ".map(s => s.getAttribute('class'))"
    )
    assert shown == [f"chart {'wide' if width > 640 else 'narrow'}"] * 5
    colour = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(255, 255, 255)") is (scheme == "light")


def test_no_text_of_a_drawing_is_too_small_on_a_phone(browser, page):
    browser.show(page.as_uri(), width=400)
    sizes = browser.value(
        "[...document.querySelectorAll('.narrow text')]"
        ".map(t => t.getBoundingClientRect().height)"
    )
    assert min(sizes) > 10


def test_text_stands_out_from_its_ground(browser, page):
    for scheme in ("light", "dark"):
        browser.show(page.as_uri(), scheme=scheme)
        for what in ("p", ".note", "td", "figcaption", ".card span", "thead th"):
            colours = browser.value(
                f"[getComputedStyle(document.querySelector('{what}')).color,"
                "getComputedStyle(document.body).backgroundColor]"
            )
            assert contrast(*colours) >= 4.5, (scheme, what, colours)


def contrast(one, other):
    """The ratio of WCAG 2: 4.5 is asked of text."""

    def light(colour):
        parts = [int(n) / 255 for n in re.findall(r"\d+", colour)[:3]]
        linear = [
            c / 12.92 if c <= 0.04 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_it_can_be_printed_folded_tables_included(browser, page):
    paper = 718  # pixels: A4 between the browser's margins
    browser.show(page.as_uri(), scheme="dark", width=paper)
    browser.ask("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.value("document.documentElement.scrollWidth") == paper
        clipped = "[...document.querySelectorAll('.scroll')].filter("
        clipped += "s => s.scrollWidth > s.clientWidth).length"
        assert browser.value(clipped) == 0
        assert browser.value("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        assert browser.value("document.querySelector('details table').offsetHeight") > 0
        assert len(browser.ask("Page.printToPDF")["data"]) > 10_000
    finally:
        browser.ask("Emulation.setEmulatedMedia", media="")


def test_no_attack_runs_in_a_browser(browser, evil, tmp_path):
    file = tmp_path / "evil.html"
    file.write_text(evil.to_html(), encoding="utf-8")
    browser.show(file.as_uri(), width=400)
    assert browser.complaints == []
    assert browser.value("document.scripts.length + document.images.length") == 0
    assert browser.value("document.documentElement.scrollWidth") == 400


def test_places_on_a_scale_by_hand():
    assert Scale(0.0, 4.0)(1.0) == 0.25
    assert Scale(0.0, 4.0)(9.0) == 1.0
    assert Scale(1.0, 100.0, is_log=True)(10.0) == pytest.approx(0.5)
    assert Scale(1.0, 100.0, is_log=True)(0.0) == 0.0
    assert Scale(2.0, 2.0)(2.0) == 0.0
    assert Scale(2.0, 2.0, is_log=True)(2.0) == 0.0


def test_ticks_are_round():
    assert linear_ticks(0.27, 0.86) == [0.4, 0.6, 0.8]
    assert linear_ticks(3.0, 3.0) == [3.0]
    assert log_ticks(0.03, 9.0) == [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0]
    assert log_ticks(0.03, 90.0) == [0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
    assert log_ticks(1e-6, 1e6, most=3) == [float(f"1e{p}") for p in range(-6, 7)]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (1234.5, "1,234"),
        (0.5, "0.5"),
        (0.00002, "2.0e-05"),
        (0.0, "0"),
        (math.nan, "–"),
    ],
)
def test_money_has_the_digits_that_matter(value, told):
    assert money(value) == told
