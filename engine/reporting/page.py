"""Contents and pictures -> one HTML file that needs no other file, no server and no network."""

import base64
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from datasets.files import printable
from engine import __version__
from engine.analysis.summary import METRICS
from engine.files import ROOT
from engine.reporting import views
from engine.reporting.contents import ReportContent
from engine.reporting.media import Previews

_HERE = Path(__file__).parent


def render_page(content: ReportContent, previews: Sequence[Previews]) -> str:
    """The whole page; `previews` are those of each set of videos.

    Names from outside are escaped everywhere, and the page's own policy lets nothing run but its
    own script.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters |= {"percent": _percent, "p_value": lambda p: f"{p:.2g}"}
    style, script = ((_HERE / name).read_text("utf-8") for name in ("page.css", "page.js"))
    return environment.get_template("page.html.j2").render(
        content=content,
        views=views,
        previews=previews,
        data=views.page_data(content, [own.images for own in previews]),
        sizes=[own.size for own in previews],
        notes=_notes(content, previews),
        pairs=views.pair_rows(content),
        records=_records(content),
        title=_title(content),
        metrics=[m for m in METRICS if any(m in test.numbers for test in content.tests)],
        version=__version__,
        written=time.strftime("%Y-%m-%d %H:%M"),
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _notes(content: ReportContent, previews: Sequence[Previews]) -> list[str]:
    """What a reader should know first; without the folder that the code lies in."""
    notes = [*content.notes, *(own.note for own in previews if own.note)]
    return [note.replace(f"{ROOT}/", "") for note in dict.fromkeys(notes)]


def _hash(text: str) -> str:
    """As a Content-Security-Policy names a text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _percent(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _title(content: ReportContent) -> str:
    names = [test.record.dataset or test.scores.path.stem for test in content.tests]
    names = list(dict.fromkeys(names))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _records(content: ReportContent) -> list[tuple[list[str], object]]:
    """What is known of how the tests were made, each record once, with its tests' names."""
    found: list[tuple[list[str], object]] = []
    for test in content.tests:
        for names, record in found:
            if record == test.record:
                names.append(test.name)
                break
        else:
            found.append(([test.name], test.record))
    return found
