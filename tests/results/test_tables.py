"""Tables: what is written comes back, typed, in order, byte for byte."""

from __future__ import annotations

import subprocess
import sys
from math import inf, nan

import pyarrow as pa
import pytest

from airi_sim.core.errors import BadInput
from airi_sim.core.log import TABLES, Log
from airi_sim.results.tables import ORDER, TableWriter, read_table, read_tables, schema, write_tables


def plain(table: pa.Table) -> list[tuple]:
    return [tuple(row.values()) for row in table.to_pylist()]


def test_rows_come_back_in_order(tmp_path, rows):
    write_tables(rows, tmp_path, "torch")
    for name in TABLES:
        keys = [TABLES[name].index(column) for column in ORDER[name]]
        wanted = sorted(rows[name], key=lambda row, keys=keys: [row[key] for key in keys])
        extra = ("torch",) if name == "requests" else ()
        assert plain(read_table(tmp_path, name)) == [(*row, *extra) for row in wanted]


def test_identical_runs_give_identical_bytes(tmp_path, rows):
    write_tables(rows, tmp_path / "a", "sim")
    write_tables({name: list(table) for name, table in rows.items()}, tmp_path / "b", "sim")
    for name in TABLES:
        assert (tmp_path / "a" / f"{name}.parquet").read_bytes() == (tmp_path / "b" / f"{name}.parquet").read_bytes()


def test_a_streamed_run_reads_like_a_written_one(tmp_path, rows):
    write_tables(rows, tmp_path / "whole", "sim")
    with TableWriter(tmp_path / "stream", "sim") as writer:
        log = Log(sink=writer)
        for part in (slice(0, 7), slice(7, None)):
            for name in TABLES:
                log.rows[name].extend(rows[name][part])
            log.flush()
    assert read_tables(tmp_path / "stream") == read_tables(tmp_path / "whole")


def test_what_is_undefined_is_null(tmp_path):
    request = (0, "t", "", "chat", "m", 0.0, None, inf, 5, 0, 0, "rejected", "full")
    job = (0, 0, "generate", "m", None, None, 0.0, nan, None, None, 5, 0, 0, 0, "rejected")
    write_tables({"requests": [request], "jobs": [job]}, tmp_path, "sim")
    told = read_table(tmp_path, "requests").to_pylist()[0]
    assert (told["first_token_s"], told["finish_s"], told["source"]) == (None, None, "sim")
    told = read_table(tmp_path, "jobs").to_pylist()[0]
    assert (told["server"], told["started_s"], told["first_s"]) == (None, None, None)


def test_types_do_not_depend_on_the_rows(tmp_path):
    write_tables({}, tmp_path, "sim")
    for name in TABLES:
        assert read_table(tmp_path, name).schema.equals(schema(name))
    assert schema("requests").field("arrival_s").type == pa.float64()
    assert schema("plans").field("kv_blocks").type == pa.int64()
    assert schema("spans").field("emitted").type == pa.bool_()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        TableWriter(tmp_path / "file", "sim")


def test_a_broken_or_missing_table_is_refused(tmp_path):
    (tmp_path / "jobs.parquet").write_bytes(b"not parquet")
    for name in ("jobs", "plans"):
        with pytest.raises(BadInput, match="not a readable table"):
            read_table(tmp_path, name)


def test_writing_and_summarising_do_not_load_pandas_or_matplotlib(tmp_path):
    """They are on the path of every run, and their import takes longer than a small run."""
    request = (0, "t", "", "chat", "m", 0.0, 1.0, None, 5, 0, 0, "unfinished", "")
    code = (
        f"import sys; from airi_sim.results import metrics, tables; rows = {{'requests': [{request}]}}; "
        f"tables.write_tables(rows, {str(tmp_path)!r}, 'sim'); metrics.summarise(rows, engine={{}}, provenance={{}}); "
        "print(sorted({'pandas', 'matplotlib', 'scipy', 'torch'} & sys.modules.keys()))"
    )
    told = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (told.stdout, told.stderr) == ("[]\n", "")
    assert read_table(tmp_path, "requests").num_rows == 1
