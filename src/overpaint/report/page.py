"""The page of a report: one HTML file without scripts or external resources.

- Every inserted text is escaped and one visible line (`terminal.make_printable`). A content
  security policy in the page allows only pictures and styles inside it.
- Running titles and page numbers are CSS page margin boxes (CSS Paged Media), in browsers that
  support them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from overpaint import hashes
from overpaint.detection.result import format_percent, format_probability
from overpaint.report import wording
from overpaint.report.contents import Failure, Report
from overpaint.report.views import make_data_uri
from overpaint.terminal import make_printable

if TYPE_CHECKING:
    from overpaint.report.api import Chapter


def render_page(
    report: Report, chapters: Sequence["Chapter"], json_name: str, text: bytes
) -> bytes:
    """The page in UTF-8. json_name: name of the JSON file beside it; text: that file's content."""
    page = _make_environment().get_template("report.html.j2")
    made = page.render(
        report=report,
        chapters=chapters,
        json_name=json_name,
        json_sha256=hashes.sha256(text),
    )
    return made.encode()


def _make_environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("overpaint.report", "."),
        autoescape=True,
        finalize=_format_value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": format_percent,
        "probability": format_probability,
        "png": lambda picture: make_data_uri(picture, "image/png"),
        "extent": wording.describe_extent,
        "false_alarms": wording.describe_false_alarms,
        "edits": wording.describe_edits,
        "count": lambda number: f"{number:,}",
        "figure": lambda value: "n/a" if value is None else f"{value:.3f}",
        "share": lambda value: "not tried" if value is None else format_percent(value),
    }
    environment.tests["failure"] = lambda about: isinstance(about, Failure)
    return environment


def _format_value(value: Any) -> Any:
    """What the page shows for a value of the template."""
    if isinstance(value, Markup):
        return value
    return "not known" if value is None else make_printable(value)
