"""A run folder read back, its pictures, its report, its timeline."""

from __future__ import annotations

import base64
import gzip
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from airi_sim.core.errors import BadInput
from airi_sim.core.log import TABLES
from airi_sim.results import style
from airi_sim.results.compare import compare
from airi_sim.results.parity import first_divergence
from airi_sim.results.plots import Pictures, error_bars
from airi_sim.results.report import report
from airi_sim.results.run import load
from airi_sim.results.timeline import write_timeline
from tests.results.conftest import Toy

PICTURES = (
    "latency_cdf", "queue_over_time", "kv_over_time", "batch_over_time", "throughput_over_time", "service_by_tenant",
    "timeline",
)  # fmt: skip


def test_a_run_is_read_lazily_and_whole(make_run):
    run = make_run(source="torch")
    assert vars(run).keys() == {"folder"}
    assert [len(getattr(run, name)) for name in TABLES] == [len(Toy(0).rows[name]) for name in TABLES]
    assert run.requests["source"].unique().tolist() == ["torch"] == [run.source]
    assert run.config == {"seed": 0}


def test_token_times_of_a_job(make_run):
    times = Toy(0).tokens
    run = make_run()
    np.testing.assert_allclose(run.token_times(7000), times[7], atol=1e-9)
    assert len(run.token_times(123_456)) == 0


def test_notebooks_show_headlines_and_warnings_escaped(make_run):
    html = make_run()._repr_html_()
    assert "TTFT p50" in html
    assert "mind &lt;this&gt;" in html


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="not a run folder"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{}", "it has no requests"),
        ("{", "JSON"),
        ("3", "it has no requests"),
        ('{"requests": {}}', "it has no duration_s"),
    ],
)
def test_what_is_no_summary_of_a_run_is_refused(make_run, content, part):
    run = make_run()
    (run.folder / "summary.json").write_text(content)
    with pytest.raises(BadInput, match=part):
        report([load(run.folder)], run.folder / "report.html")


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_have_titles_and_units(make_run, name):
    for pictures in (make_run().plot, Pictures([make_run(), make_run("real", "torch", slow=1.1)])):
        made = getattr(pictures, name)()
        assert all(axes.get_title(loc="left") for axes in made.axes)
        assert made.get_size_inches()[0] * made.dpi == 900
        assert made.axes[-1].get_xlabel() == "time since start (s)" or name == "latency_cdf"


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_an_empty_run_can_be_drawn(make_run, name):
    empty = make_run(toy={table: [] for table in TABLES})
    assert style.svg(getattr(empty.plot, name)()).startswith("<?xml")


def test_the_two_worlds_always_have_the_same_colours(make_run):
    sim, torch = make_run(), make_run("real", "torch")
    for runs in ([sim, torch], [torch, sim]):
        pictures = Pictures(runs)
        assert pictures.colours == [style.SOURCES[run.source] for run in runs]
        drawn = [line.get_color() for line in pictures.latency_cdf().axes[0].get_lines()]
        assert drawn == pictures.colours


def test_the_distribution_reaches_every_request(make_run):
    line = make_run().plot.latency_cdf().axes[2].get_lines()[0]
    assert line.get_ydata()[-1] == 1.0
    assert line.get_xdata()[-1] == pytest.approx(make_run().summary["e2e_s"]["max"])


def test_no_run_no_picture():
    with pytest.raises(BadInput, match="no run to draw"):
        Pictures([])


def test_thinned_curves_keep_their_extremes():
    x = np.arange(100_000.0)
    y = np.sin(x)
    y[777] = 9.0
    thin_x, thin_y = style.thin(x, y)
    assert len(thin_x) <= style.POINTS + 2
    assert thin_y.max() == 9.0
    assert (np.diff(thin_x) > 0).all()


def test_the_same_figure_is_the_same_text(make_run):
    run = make_run()
    assert style.svg(run.plot.queue_over_time()) == style.svg(run.plot.queue_over_time())


def pair(make_run, **more):
    sim, measured = make_run(), make_run("real", "torch", slow=1.1)
    table = compare(sim, measured, make_run("again", "torch", slow=1.12), make_run("fitted", slow=1.09))
    parity = first_divergence(sim.decisions, measured.decisions)
    kept = {"repeat": None, "doubts": ["the machine drifted"]}
    return SimpleNamespace(name="fcfs", sim=sim, measured=measured, table=table, parity=parity, **kept, **more)


def test_error_bars_show_every_latency(make_run):
    assert len(error_bars(pair(make_run).table).axes[0].get_yticks()) == 15


def outside(text: str) -> list[str]:
    """References in a page to anything but itself."""
    return [link for link in re.findall(r"""(?:src|href)=["']([^"']*)""", text) if not link.startswith("data:")]


def test_report_of_a_run_needs_nothing_else(make_run, tmp_path):
    text = report([make_run()], tmp_path / "report.html", command="airi run seed=0").read_text()
    assert outside(text) == []
    assert "mind &lt;this&gt;" in text
    assert "airi run seed=0" in text
    pictures = re.findall(r"base64,([^\"]+)", text)
    assert len(pictures) == 7
    assert all(base64.b64decode(one).startswith(b"<?xml") for one in pictures)


def test_report_of_a_comparison_has_error_noise_and_parity(make_run, tmp_path):
    told = pair(make_run)
    text = report([told], tmp_path / "report.html").read_text()
    assert outside(text) == []
    assert f"{told.parity.total:,}/{told.parity.total:,} decisions identical" in text
    assert "noise floor" in text and "self-fit floor" in text
    assert "the machine drifted" in text
    assert "TTFT p95" in text


def test_report_of_several_runs_compares_them_first(make_run, tmp_path):
    text = report([make_run("one"), make_run("two", slow=2.0)], tmp_path / "report.html").read_text()
    assert text.index("<td>two</td>") < text.index("<h2>one</h2>")


def test_reports_about_nothing_or_to_nowhere_are_refused(make_run, tmp_path):
    with pytest.raises(BadInput, match="at least one run"):
        report([], tmp_path / "report.html")
    with pytest.raises(BadInput, match="cannot be written"):
        report([make_run()], tmp_path / "absent" / "report.html")


def test_timeline_has_every_plan_and_is_reproducible(tmp_path, rows):
    first, second = (write_timeline(rows, tmp_path / name) for name in ("a.gz", "b.gz"))
    assert first.read_bytes() == second.read_bytes()
    events = json.loads(gzip.decompress(first.read_bytes()))["traceEvents"]
    plans = [event for event in events if event["ph"] == "X"]
    assert sorted(event["ts"] for event in plans) == pytest.approx(sorted(row[2] * 1e6 for row in rows["plans"]))
    assert {event["args"]["name"] for event in events if event["ph"] == "M"} == {"default/0", "default/1"}
    assert {event["name"] for event in events if event["ph"] == "C"} == {"queue", "KV"}


def test_timeline_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(BadInput, match="cannot be written"):
        write_timeline({}, tmp_path / "absent" / "timeline.json.gz")
