"""`greenpg bench --plots`: pictures of a report that was written earlier."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from xml.etree import ElementTree

import pytest

from greenpg import cli
from tests.programs import python

MATPLOTLIB = pytest.mark.skipif(find_spec("matplotlib") is None, reason="no matplotlib")
REPORT = {
    "date": "2026-01-02",
    "machine": "Linux x86_64, 2 cores",
    "versions": {"Python": "3.11.7", "greenpg": "0.2.0"},
    "command": "greenpg bench --quick",
    "quick": True,
    "workloads": {
        "cancel": {
            "contenders": {
                "greenpg/gevent": {"samples": [{"stall": 0.5}, {"stall": 1.5}, None]},
                "psycogreen/gevent": {"samples": [{"stall": 100.0}, {"stall": 104.0}]},
                "greenpg/eventlet": {"samples": [None, None]},
            }
        },
        "distance": {
            "contenders": {
                f"{name}/gevent 1 ms, {count}": {"samples": [{"rate": rate, "time": count / rate}]}
                for name, rates in {"multiplexer": (9.0, 90.0), "pool": (9.0, 11.0)}.items()
                for count, rate in zip((1, 10), rates, strict=True)
            }
        },
        "connect": {"contenders": {"greenpg/gevent": {"samples": []}}},
    },
}


@pytest.fixture
def written(tmp_path):
    """A file that `--json` could have written."""
    file = tmp_path / "report.json"
    file.write_text(json.dumps(REPORT))
    return file


def drawn(written, folder, **environ):
    """Return the texts of the files that are drawn of a report, by name.

    By another process: matplotlib keeps its fonts open.
    """
    command = ["-m", "greenpg", "bench", "--from", str(written), "--plots", str(folder)]
    done = python(*command, env={**os.environ, **environ})
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_text() for path in folder.iterdir()}


def texts(picture):
    nodes = ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")
    return [node.text for node in nodes]


@MATPLOTLIB
def test_samples_are_drawn_as_bars_with_their_medians(written, tmp_path):
    files = drawn(written, tmp_path / "plots")

    assert files.keys() == {"run.md", "cancel.svg", "distance.svg"}
    heading = "longest stall above idle, ms"
    names = ["greenpg/gevent", "psycogreen/gevent"]
    assert texts(files["cancel.svg"]) == [*names, "1.0", "102.0", heading]


@MATPLOTLIB
def test_numbers_of_tasks_are_drawn_as_curves(written, tmp_path):
    shown = texts(drawn(written, tmp_path / "plots")["distance.svg"])

    for word in ("answers/s", "mean time of an answer, ms", "multiplexer, 1 ms", "pool, 1 ms"):
        assert shown.count(word) == 1
    assert shown.count("tasks") == 2


@MATPLOTLIB
def test_the_same_samples_give_the_same_files(written, tmp_path):
    settings = tmp_path / "matplotlibrc"
    settings.write_text("axes.grid: True\nsvg.hashsalt: other\n")

    first = drawn(written, tmp_path / "first")
    second = drawn(written, tmp_path / "second", MATPLOTLIBRC=str(settings))

    assert first == second


@MATPLOTLIB
def test_the_run_is_named_beside_the_pictures_and_not_inside(written, tmp_path):
    files = drawn(written, tmp_path / "plots")

    for fact in (
        "2026-01-02",
        "Linux x86_64, 2 cores",
        "greenpg 0.2.0",
        "`greenpg bench --quick`, with few",
    ):
        assert fact in files["run.md"]
        assert fact not in files["cancel.svg"]


def test_without_matplotlib_the_error_names_the_extra(written, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "greenpg_bench.plots", raising=False)

    code = cli.main(["bench", "--from", str(written), "--plots", str(tmp_path / "plots")])

    assert code == 1
    assert capsys.readouterr().err == (
        "greenpg bench: --plots needs matplotlib; pip install 'greenpg[plots]'\n"
    )


def test_a_report_alone_is_an_error(written, capsys):
    assert cli.main(["bench", "--from", str(written)]) == 1
    assert "--plots DIR" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_another_file_is_an_error(tmp_path, text, capsys):
    file = tmp_path / "other.json"
    file.write_text(text)

    assert cli.main(["bench", "--from", str(file), "--plots", str(tmp_path)]) == 1
    assert "other.json" in capsys.readouterr().err
