"""The page of a report: one file without scripts, which loads nothing from anywhere.

- Every text that is put in is one visible line (`terminal.printable`), and escaped. A content
  security policy in the page allows pictures and styles that stand in it, and nothing else.
- Running titles and page numbers come from CSS page margins (CSS Paged Media), where the browser
  knows them.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from overpaint.detection.result import percent, probability
from overpaint.report import wording
from overpaint.report.contents import Failure, Report
from overpaint.report.views import data_uri
from overpaint.terminal import printable

if TYPE_CHECKING:
    from overpaint.report.api import Chapter


def render(report: Report, chapters: Sequence["Chapter"], twin: str, text: bytes) -> bytes:
    """The page in UTF-8. twin: name of the JSON file beside it; text: what stands in that."""
    page = _environment().get_template("report.html.j2")
    made = page.render(
        report=report,
        chapters=chapters,
        twin=twin,
        twin_sha256=hashlib.sha256(text).hexdigest(),
    )
    return made.encode()


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("overpaint.report", "."),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "probability": probability,
        "png": lambda picture: data_uri(picture, "image/png"),
        "extent": wording.extent,
        "false_alarms": wording.false_alarms,
        "count": lambda number: f"{number:,}",
        "figure": lambda value: "n/a" if value is None else f"{value:.3f}",
        "share": lambda value: "not tried" if value is None else percent(value),
    }
    environment.tests["failure"] = lambda about: isinstance(about, Failure)
    return environment


def _shown(value: Any) -> Any:
    """What stands in the page for a value that the template puts in."""
    if isinstance(value, Markup):
        return value
    return "not known" if value is None else printable(value)
