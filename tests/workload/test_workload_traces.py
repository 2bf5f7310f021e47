"""Readers and Trace: what published files mean, what is done to them, and every way a file can be wrong."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from time import process_time

import pytest

from airi_sim.core.errors import BadInput
from airi_sim.workload import Trace

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n"
BURST = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"


@pytest.fixture
def file(tmp_path: Path):
    def write(text: str, name: str = "t.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, newline="")
        return path

    return write


def rows(trace):
    return [(i.request.arrival, i.request.tokens, i.output_tokens) for i in trace]


def jsonl(*records):
    return "\n".join(json.dumps(record) for record in records)


def mooncake(ms=0, tokens=1024, output=5, ids=(0, 1), **more):
    return {"timestamp": ms, "input_length": tokens, "output_length": output, "hash_ids": list(ids), **more}


def test_azure_times_count_from_the_first_row_with_all_seven_decimals(file):
    text = AZURE + "2023-11-16 23:59:59.9799600,374,44\r\n2023-11-17 00:00:00.0319601,3180,8"
    trace = Trace(file(text))
    assert trace.format == "azure"
    assert rows(trace) == [(0.0, 374, 44), (0.0520001, 3180, 8)]
    assert trace.warnings == []


def test_azure_of_later_years_has_an_offset_and_images(file):
    header = "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
    text = header + "2024-05-10 00:00:00.5+00:00,2,7,8\n2024-05-10 00:01:00.0+00:00,0,9,10\n"
    assert rows(Trace(file(text))) == [(0.0, 7, 8), (59.5, 9, 10)]


def test_a_scale_that_puts_arrivals_where_times_are_not_exact_is_refused(file):
    path = file(VIDUR + "0,3,4\n2,3,4\n")
    assert rows(Trace(path, rate_scale=2e-12))[-1][0] == 1e12
    with pytest.raises(BadInput, match=r"workload.rate_scale=1e-320 puts arrivals after"):
        Trace(path, rate_scale=1e-320)


def test_vidur_times_are_as_they_are(file):
    trace = Trace(file(VIDUR + "0.5,3,4\n\n2,1,1\n"))
    assert trace.format == "vidur"
    assert rows(trace) == [(0.5, 3, 4), (2.0, 1, 1)]


def test_burstgpt_by_column_name_without_failures(file):
    text = BURST + '5,"a,b",1,ChatGPT,472,18,490,chat\n45,,1,GPT-4,1087,0,1087,chat\n50,s,1,GPT-4,10,2,12,chat\n'
    trace = Trace(file(text))
    assert trace.format == "burstgpt"
    assert rows(trace) == [(5.0, 472, 18), (50.0, 10, 2)]
    assert [i.request.session for i in trace] == ["a,b", "s"]
    assert "1 failed requests" in trace.warnings[0]


def test_mooncake_is_milliseconds_and_prefix_ids_of_512_tokens(file):
    trace = Trace(file(jsonl(mooncake(0), mooncake(1500, ids=(0, 2))), "m.jsonl"))
    assert (trace.format, trace.hash_block) == ("mooncake", 512)
    assert [(i.request.arrival, i.request.prefix) for i in trace] == [(0.0, (0, 1)), (1.5, (0, 2))]


def test_our_format_sets_every_optional_field_and_keeps_unknown_keys(file):
    labels = {"tenant": "t", "session": 7, "model": "m", "priority": 3, "slo": "gold", "program": "rag"}
    record = mooncake(2000, 100, 5, range(7), hash_block=16, deadline_ms=500, note="x", **labels)
    trace = Trace(
        file(jsonl(mooncake(1000, 32, 1), record).replace('"hash_ids": [0, 1]', '"hash_block": 16'), "a.jsonl")
    )
    plain, full = (item.request for item in trace)
    assert (trace.format, trace.hash_block) == ("airi", 16)
    assert (full.tenant, full.session, full.model, full.priority) == ("t", "7", "m", 3)
    assert (full.slo, full.program, full.deadline, full.prefix) == ("gold", "rag", 2.5, tuple(range(7)))
    assert (plain.tenant, plain.deadline, plain.program) == ("default", float("inf"), "chat")
    assert trace.extras == {1: {"note": "x"}}


def test_rows_out_of_order_are_sorted_with_a_warning_and_everything_moves_along(file):
    records = [mooncake(2000, 600, 2, (8, 9), note=2), mooncake(1000, 700, 1, (3,), tenant="a"), mooncake(3000)]
    trace = Trace(file(jsonl(*records), "u.jsonl"))
    assert rows(trace) == [(1.0, 700, 1), (2.0, 600, 2), (3.0, 1024, 5)]
    assert [i.request.id for i in trace] == [0, 1, 2]
    assert [i.request.prefix for i in trace] == [(3,), (8, 9), (0, 1)]
    assert [i.request.tenant for i in trace] == ["a", "default", "default"]
    assert trace.extras == {1: {"note": 2}}
    assert trace.warnings == ["u.jsonl: 1 rows were earlier than the row before them; the rows were sorted."]


def test_an_azure_row_before_the_first_row_still_gets_a_time_of_at_least_0(file):
    text = AZURE + "2023-11-16 18:00:10.0,1,1\n2023-11-16 18:00:09.0,2,2\n"
    assert rows(Trace(file(text))) == [(0.0, 2, 2), (1.0, 1, 1)]


def test_rows_without_tokens_count_as_one_token(file):
    trace = Trace(file(VIDUR + "0,0,5\n1,5,0\n2,5,0\n"))
    assert rows(trace) == [(0.0, 1, 5), (1.0, 5, 1), (2.0, 5, 1)]
    assert [w.split(": ")[1][:13] for w in trace.warnings] == ["1 rows with 0", "2 rows with 0"]


def test_start_limit_and_rate(file):
    path = file(VIDUR + "".join(f"{t},{t + 1},1\n" for t in range(10)))
    assert rows(Trace(path, start_s=4.0, limit=3, rate_scale=2.0)) == [(0.0, 5, 1), (0.5, 6, 1), (1.0, 7, 1)]


def test_limit_does_not_read_what_it_does_not_need(file):
    assert len(Trace(file(VIDUR + "0,1,1\nnonsense\n"), limit=1)) == 1


def test_iterating_twice_gives_the_same_fresh_requests(file):
    trace = Trace(file(VIDUR + "0,1,1\n"))
    first, second = next(iter(trace)), next(iter(trace))
    assert first == second
    assert first.request is not second.request


def test_scaled_lengths_are_at_least_one_and_capped(file):
    scale = {"input": 0.1, "output": 0.5, "max_input": 50, "max_output": None}
    trace = Trace(file(VIDUR + "0,1,1\n1,100,9\n2,1000,100\n"), scale=scale)
    assert rows(trace) == [(0.0, 1, 1), (1.0, 10, 4), (2.0, 50, 50)]


def test_scaling_keeps_the_shared_proportion_of_prompts(file):
    path = file(jsonl(mooncake(0, 1500, ids=(0, 1, 2)), mooncake(1, 1024, ids=(0, 1))), "s.jsonl")
    trace = Trace(path, scale={"input": 1 / 32})
    assert trace.hash_block == 16
    assert [(i.request.tokens, i.request.prefix) for i in trace] == [(47, (0, 1, 2)), (32, (0, 1))]
    assert trace.warnings == []


def test_capped_prompts_lose_the_ids_beyond_their_end(file):
    trace = Trace(file(jsonl(mooncake(0, 1500, ids=(0, 1, 2))), "s.jsonl"), scale={"max_input": 600})
    assert [(i.request.tokens, i.request.prefix) for i in trace] == [(600, (0, 1))]


def test_ids_of_less_than_a_token_are_dropped_and_uneven_ones_reported(file):
    path = file(jsonl(mooncake(0, 1024)), "s.jsonl")
    tiny, uneven = Trace(path, scale={"input": 1 / 1024}), Trace(path, scale={"input": 0.01})
    assert next(iter(tiny)).request.prefix == ()
    assert "dropped" in tiny.warnings[0]
    assert uneven.hash_block == 5
    assert "5.12 tokens" in uneven.warnings[0]


def test_files_are_found_in_the_data_folder_with_or_without_suffix(file, tmp_path, monkeypatch):
    (tmp_path / "traces").mkdir()
    path = file(VIDUR + "0,1,1\n", "traces/W1.csv")
    assert Trace("W1", data_dir=tmp_path).path == path
    assert Trace("traces/W1.csv", data_dir=tmp_path).path == path
    monkeypatch.setenv("AIRI_DATA", str(tmp_path))
    assert Trace("W1.csv").path == path


BAD_ROWS = [
    (AZURE + "2023-11-16 18:00:10.0,1,1\nyesterday,1,1\n", "line 3, column 'TIMESTAMP': 'yesterday' is not a time"),
    (AZURE + "2023-11-16 18:00:99.0,1,1\n", "line 2, column 'TIMESTAMP'"),
    (AZURE + "2023-11-16 18:00:nan,1,1\n", "line 2, column 'TIMESTAMP'"),
    (AZURE + ",1,1\n", "line 2, column 'TIMESTAMP': the value is missing"),
    (AZURE + "2023-11-16 18:00:10.0,-5,1\n", "line 2, column 'ContextTokens': '-5' must be 0 or more"),
    (AZURE + "2023-11-16 18:00:10.0,5,-1\n", "line 2, column 'GeneratedTokens': '-1' must be 0 or more"),
    (AZURE + "2023-11-16 18:00:10.0,5\n", "line 2, column 'GeneratedTokens': the value is missing"),
    (AZURE + "2023-11-16 18:00:10.0,NaN,5\n", "line 2, column 'ContextTokens': 'NaN' must be 0 or more and finite"),
    (VIDUR + "nan,1,1\n", "line 2, column 'arrived_at'"),
    (VIDUR + "-1,1,1\n", "line 2, column 'arrived_at'"),
    (VIDUR + "inf,1,1\n", "line 2, column 'arrived_at'"),
    (VIDUR + "0,1,1\n\n1,many,1\n", "line 4, column 'num_prefill_tokens': 'many' is not a number"),
    (VIDUR + "0,1.5,1\n", "line 2, column 'num_prefill_tokens': '1.5' is not a number of tokens"),
    (VIDUR + f"0,{10**30},1\n", "line 2, column 'num_prefill_tokens'"),
    (VIDUR + "0,,1\n", "line 2, column 'num_prefill_tokens': the value is missing"),
    (BURST + "x,s,1,m,1,1,2,l\n", "line 2, column 'Timestamp'"),
    (jsonl(mooncake(), mooncake(-1)), "line 2, column 'timestamp': -1 must be 0 or more"),
    (jsonl(mooncake(tokens=float("nan"))), "line 1, column 'input_length'"),
    (jsonl(mooncake(tokens="many")), "line 1, column 'input_length': 'many' is not a number"),
    (jsonl(mooncake(output=None)), "line 1, column 'output_length': the value is missing"),
    (jsonl({"timestamp": 0, "input_length": 3}), "line 1, column 'output_length': the value is missing"),
    (jsonl(mooncake(), mooncake(hash_block=16, ids=(1,))), "line 2, column 'hash_block': 16 differs from 512"),
    (jsonl(mooncake(hash_block=0)), "line 1, column 'hash_block': 0 tokens"),
    (jsonl(mooncake(ids=("a",))), "line 1, column 'hash_ids'"),
    (jsonl(mooncake(ids=(1 << 70,))), "line 1, column 'hash_ids'"),
    (jsonl(mooncake(tokens=10)), "line 1, column 'hash_ids': 2 ids of 512 tokens are more than the 10"),
    (jsonl(mooncake(), mooncake(program="os.abort")), "line 2, column 'program': 'os.abort' is none of the programs"),
    (jsonl(mooncake(priority="high")), "line 1, column 'priority'"),
    (jsonl(mooncake(deadline_ms=-4)), "line 1, column 'deadline_ms'"),
    (jsonl(mooncake(tenant=["a"])), "line 1, column 'tenant'"),
    (jsonl(mooncake()) + "\n{oops", "line 2, column '(whole line)': not valid JSON"),
    (jsonl(mooncake()) + "\n[1]", "line 2, column '(whole line)': a JSON object is needed"),
]


@pytest.mark.parametrize(("text", "message"), BAD_ROWS)
def test_bad_rows_are_named_by_file_line_and_column(file, text, message):
    with pytest.raises(BadInput) as error:
        Trace(file(text))
    assert "t.csv, " in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "  \n\n"])
def test_an_empty_file_is_refused(file, text):
    with pytest.raises(BadInput, match="is empty"):
        Trace(file(text))


@pytest.mark.parametrize("format", ["vidur", "mooncake"])
def test_a_file_without_rows_is_refused(file, format):
    with pytest.raises(BadInput, match="at least one row"):
        Trace(file(VIDUR if format == "vidur" else ""), format=format)


def test_a_start_after_the_end_is_refused(file):
    with pytest.raises(BadInput, match=r"no request at or after workload\.start_s=9"):
        Trace(file(VIDUR + "0,1,1\n"), start_s=9.0)


def test_an_unknown_header_lists_the_known_ones(file):
    with pytest.raises(BadInput, match=r"'a,b,c' is no known trace header \(azure: TIMESTAMP, .*vidur: arrived_at"):
        Trace(file("a,b,c\n1,2,3\n"))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"PAR1\x00\xff\xfe" * 50_000)
    with pytest.raises(BadInput, match="no known trace header"):
        Trace(path)


def test_a_format_that_does_not_fit_names_the_missing_column(file):
    with pytest.raises(BadInput, match="no column 'TIMESTAMP'"):
        Trace(file(VIDUR + "0,1,1\n"), format="azure")


def test_unknown_formats_list_the_known_ones(file):
    with pytest.raises(BadInput, match="there are airi, auto, azure, burstgpt, mooncake, vidur; did you mean 'azure'"):
        Trace(file(VIDUR), format="azur")


def test_a_missing_file_is_named_with_the_nearest_one(file, tmp_path):
    file(VIDUR, "W1_1k.csv")
    with pytest.raises(BadInput, match=r"there is no file 'W1_2k.csv'.* \(did you mean 'W1_1k.csv'\?\)"):
        Trace("W1_2k.csv", data_dir=tmp_path)
    with pytest.raises(BadInput, match=r"give workload\.path=FILE"):
        Trace("")


@pytest.mark.parametrize(
    "keys",
    [
        {"limit": 0}, {"limit": 2.5}, {"start_s": -1.0}, {"start_s": float("nan")}, {"rate_scale": 0.0},
        {"rate_scale": float("inf")}, {"scale": {"input": 0}}, {"scale": {"max_input": 0}}, {"scale": {"inputs": 1}},
        {"program": "chatt"}, {"program": "no_such_module.run"}, {"program": "json.no_such_function"},
    ],
)  # fmt: skip
def test_bad_settings_are_named(file, keys):
    with pytest.raises(BadInput, match=next(iter(keys))):
        Trace(file(VIDUR + "0,1,1\n"), **keys)


@pytest.mark.parametrize(
    ("name", "count", "format"),
    [
        ("azure_conv", 19366, "azure"),
        ("azure_code", 8819, "azure"),
        ("mooncake", 12031, "mooncake"),
        ("W1", 10000, "vidur"),
    ],
)
def test_published_traces_are_read_whole_fast_and_in_order(data_dir, name, count, format):
    before = process_time()
    trace = Trace(name, data_dir=data_dir)
    items = list(trace)
    assert process_time() - before < 1.0  # 0.15 s at most on a laptop core
    assert (len(items), trace.format, trace.warnings) == (count, format, [])
    assert all(a.request.arrival <= b.request.arrival for a, b in pairwise(items))
    assert [i.request.id for i in items] == list(range(count))


def test_mooncake_scaled_to_a_small_model_keeps_its_sharing(data_dir):
    whole, small = (list(Trace("mooncake", data_dir=data_dir, limit=2000, scale={"input": s})) for s in (1.0, 1 / 32))
    kept = sum(len(b.request.prefix) for b in small) / sum(len(a.request.prefix) for a in whole)
    assert kept > 0.99
