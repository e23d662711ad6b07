"""Tables as text and as Markdown."""

from engine.analysis.tables import markdown_table, text_table

HEAD, ROWS = ["class", "top-1"], [["left", "9.00"], ["$1", "100.00"], ["..."]]


def test_text_has_no_blanks_at_line_ends():
    assert text_table(HEAD, ROWS).splitlines() == [
        "class      top-1",
        "left        9.00",
        "$1        100.00",
        "...",
    ]


def test_markdown():
    lines = markdown_table(HEAD, ROWS[:2]).splitlines()
    assert [line.replace(" ", "") for line in lines] == [
        "|class|top-1|",
        "|:--------|--------:|",
        "|left|9.00|",
        "|$1|100.00|",
    ]
