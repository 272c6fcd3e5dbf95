"""The page: head, policy, style, sections."""

import base64
import hashlib
from functools import lru_cache
from importlib.resources import files

from mixllm_integrations.core.markup import Content, Element, element, written
from mixllm_integrations.report.full import Report
from mixllm_integrations.report.page import learning_sections, sections

__all__ = ["document"]


def document(report: Report, *, live: bool = False) -> str:
    """Return a report as one page.

    Parameters
    ----------
    report
        What is told.
    live
        Whether the page asks its server for news now and then.
    """
    style, script = _file("page.css"), _file("live.js")
    policy = [
        "default-src 'none'",
        f"style-src '{_digest(style)}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    if live:
        policy += [f"script-src '{_digest(script)}'", "connect-src 'self'"]
    allowed = {"http-equiv": "Content-Security-Policy", "content": "; ".join(policy)}
    head = [
        element("meta", {"charset": "utf-8"}),
        element("meta", allowed),
        element("meta", {"name": "viewport", "content": "width=device-width"}),
        element("meta", {"name": "color-scheme", "content": "light dark"}),
        element("meta", {"name": "referrer", "content": "no-referrer"}),
        element("link", {"rel": "icon", "href": "data:,"}),
        element("title", None, f"mixllm report {report.made:%Y-%m-%d %H:%M}"),
        element("style", None, style),
    ]
    if live:
        head.append(element("script", {"defer": "defer"}, script))
    page = element(
        "html",
        {"lang": "en"},
        element("head", None, *head),
        element("body", None, _header(report), _main(report), _footer(report)),
    )
    return f"<!DOCTYPE html>\n{written(page)}\n"


def _header(report: Report) -> Element:
    seen = report.overview
    ends = [f"{at:%d %b %Y %H:%M}" for at in (seen.first, seen.last) if at is not None]
    window = f"{' to '.join(ends)} UTC" if ends else "no decision yet"
    said: list[Content] = [element("h1", None, "What the router did")]
    said.append(element("p", {"class": "window"}, window))
    if report.source:
        said.append(element("p", {"class": "source"}, report.source))
    return element("header", None, *said)


def _main(report: Report) -> Element:
    series = sections.palette(report)
    told = [
        sections.at_a_glance(report),
        sections.cost_and_quality(report),
        sections.candidates(report, series),
        sections.latency(report, series),
        sections.domains(report),
        learning_sections.calibration(report),
        learning_sections.drift(report),
        learning_sections.exploration(report),
        learning_sections.regrets(report),
    ]
    if report.recorded is not None:
        told.insert(2, learning_sections.recorded(report.recorded, series))
    told.append(learning_sections.small_print(report))
    return element("main", None, *told)


def _footer(report: Report) -> Element:
    from mixllm_integrations import __version__

    made = (
        f"Made {report.made:%Y-%m-%d %H:%M} UTC by mixllm-integrations {__version__}."
    )
    return element("footer", None, element("p", None, made))


@lru_cache
def _file(name: str) -> str:
    return (files("mixllm_integrations.report.page") / name).read_text("utf-8")


def _digest(content: str) -> str:
    found = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(found).decode()}"
