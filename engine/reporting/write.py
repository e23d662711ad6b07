"""A report on score files: read, with pictures as far as the file's size allows, written whole."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from datasets.files import check_writable, written_whole
from engine import distributed
from engine.config import ReportConfig, TestConfig
from engine.reporting.contents import read_contents
from engine.reporting.media import Previews, make_previews
from engine.reporting.page import render_page
from engine.reporting.views import wanted_videos
from engine.testing.run import result_files
from models import get_arch

NO_PREVIEWS = Previews({}, (0, 0))


def make_report(
    config: ReportConfig, paths: Sequence[Path], summaries: Mapping[Path, Path] | None = None
) -> Path:
    """Writes the report on score files; returns its path, by default `<first file>.html`.

    Args:
        summaries: score file -> its JSON, of those that do not lie beside it.

    Raises DataError, naming the file, for one that is no score file, and OSError.
    """
    output = config.output or paths[0].with_suffix(".html")
    content = read_contents(config, paths, summaries)
    check_writable(output.parent)
    bare = render_page(content, [NO_PREVIEWS] * len(content.sets))
    room = config.max_mb * 1e6 - len(bare.encode()) - 1000 * len(content.sets)
    previews = []
    for number, places in enumerate(content.sets):
        left = room - sum(len(uri) for own in previews for uri, _ in own.images.values())
        test, wanted = content.tests[places[-1]], wanted_videos(content, places)
        previews.append(make_previews(config, test, wanted, left / (len(content.sets) - number)))
    with written_whole(output, "w") as file:
        file.write(render_page(content, previews))
    return output


def report_test(config: TestConfig, *archs: str) -> None:
    """After a test with --html: writes its report beside its results, and prints where."""
    if not config.html or not distributed.is_main():
        return
    stem, scores = result_files(config, "+".join(get_arch(arch).name for arch in archs))
    summary = Path(f"{stem}.json")
    own = ReportConfig(runs=config.runs, output=Path(f"{stem}.html"))
    print(f"report: {make_report(own, [scores], {scores: summary})}")
