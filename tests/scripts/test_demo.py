"""What the demo says at its end."""

import json

from scripts import demo


def test_its_last_lines_name_the_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    archs = [*demo.STREAMS.values()]
    stem = f"motions_{'+'.join(archs)}_split1_multi_clip_ten_crop.json"
    (tmp_path / "results").mkdir()
    summary = {"top1": 99.0, "streams": {arch: {"top1": 90.0} for arch in archs}}
    (tmp_path / "results" / stem).write_text(json.dumps(summary))
    assert demo.print_results(1.0) == 99.0
    assert "source .venv/bin/activate" in capsys.readouterr().out
