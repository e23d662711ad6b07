"""Any command line is carried out or refused in words: no traceback for any input."""

from engine.command.start import run

import argparse
import contextlib
import importlib
import io
import re
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import two_stream2
import two_stream_bert2
from scripts import ablate, attention, cache_tokens, report, to_fiftyone
from scripts.eval import combined_demo, spatial_demo3D, spatial_demo_bert
from tests.engine.command.test_start import COMMANDS

SCRIPTS = [two_stream2, two_stream_bert2, spatial_demo3D, spatial_demo_bert, combined_demo]
SCRIPTS += [ablate, attention, cache_tokens, report, to_fiftyone]
fuzzed = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def flags_of(script, monkeypatch) -> list[str]:
    """Every flag that a script's parser knows."""
    seen = []

    def note(self, *args, **kwargs):
        seen.extend(option for action in self._actions for option in action.option_strings)
        raise SystemExit

    with monkeypatch.context() as patch, contextlib.suppress(SystemExit):
        patch.setattr("argparse.ArgumentParser.parse_args", note)
        script.main([])
    return sorted(set(seen) - {"-h", "--help", "--settings", "--frames"})


values = st.one_of(
    st.text(max_size=12),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["nan", "1e999", "-1", "~nobody/x", "../..", "/", "\0", "cuda", "meta", "last"]
    ),
    st.sampled_from(["rgb_tiny3D16f", "rgb_tiny3D16f_bert10_FRMB", "flow_tiny3D16f", "toy"]),
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__.split(".")[-1])
@fuzzed
@given(data=st.data())
def test_any_command_line_is_refused_in_words(script, tmp_path, monkeypatch, data):
    """The data set is not there, so nothing can begin."""
    flags = data.draw(st.lists(st.sampled_from(flags_of(script, monkeypatch)), max_size=4))
    argv = ["--settings", str(tmp_path), "--frames", str(tmp_path)]
    for flag in flags:
        argv += [flag, *data.draw(st.lists(values, max_size=2))]
    said = io.StringIO()
    with pytest.raises(SystemExit) as end, contextlib.redirect_stderr(said):
        run(lambda: script.main(argv))
    reason = end.value.code if isinstance(end.value.code, str) else said.getvalue()
    assert "error: " in reason and "Traceback" not in reason


def parser_of(command: str, monkeypatch) -> argparse.ArgumentParser:
    """The parser that a command builds, by its path."""
    script = importlib.import_module(command.removesuffix(".py").replace("/", "."))
    seen = []

    def note(self, *args, **kwargs):
        seen.append(self)
        raise SystemExit

    with monkeypatch.context() as patch, contextlib.suppress(SystemExit):
        patch.setattr("argparse.ArgumentParser.parse_args", note)
        patch.setattr("sys.argv", [command])
        script.main()
    (parser,) = seen
    return parser


def actions_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every flag and argument, also those of subcommands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subcommand in action.choices.values():
                yield from actions_of(subcommand)
        else:
            yield action


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_says_what_it_is_for(command, monkeypatch):
    parser = parser_of(command, monkeypatch)
    parser.format_help()  # every % in a help text is one of argparse's
    for action in actions_of(parser):
        name = "/".join(action.option_strings) or action.dest
        said = re.sub(r"\([^()]*\)", "", action.help or "")  # without the default
        assert len(re.findall(r"[A-Za-z]{2,}", said)) >= 3, f"{name}: {action.help}"
        if name.startswith("--arch"):
            assert "scripts/list_archs.py" in action.help, name
        if action.dest == "dataset" and action.option_strings:
            with pytest.raises(argparse.ArgumentTypeError, match="plain name"):
                action.type("my/set")


def test_b_is_the_rgb_network_of_the_fused_test(monkeypatch):
    parser = parser_of("scripts/eval/combined_demo.py", monkeypatch)
    (action,) = (each for each in actions_of(parser) if "-b" in each.option_strings)
    assert action.help.startswith("the RGB network") and "-b is no batch size here" in action.help
