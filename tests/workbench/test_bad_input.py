"""Every kind of bad input ends with exit code 2, one sentence on stderr, and nothing written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import airi_sim.runtime.runtime as runtime
import airi_sim.runtime.token_server as token_server

if TYPE_CHECKING:
    from tests.workbench.conftest import Run

HEAD = "arrived_at,num_prefill_tokens,num_decode_tokens\n"
MINE = "tests.fixtures.nonsense"
SHORT = ("workload.n=30", "workload.rate=2000", "workload.output.mean=16", "workload.input.mean=100")
TIGHT = (*SHORT, "server.kv_blocks=40", "server.max_num_seqs=16", "server.max_num_batched_tokens=256",
         "workload.input.max=300")  # fmt: skip

# -- keys: what is written, and what the sentence must hold

KEYS = {
    "seed=abc": ("seed=abc", "a whole number from 0"),
    "seed=null": ("seed=null",),
    "~seed": ("seed",),
    "precision=xx": ("precision=xx", "bf16, fp16"),
    "precision=null": ("precision=null", "bf16"),
    "data.dir=3": ("data.dir=3", "text"),
    "data=null": ("data=null", "dir"),
    "pool=null": ("pool=null", "replicas"),
    "pool.replicas=0": ("pool.replicas=0", "from 1"),
    "pool.replicas=1000000000": ("pool.replicas", "100,000"),
    "pool.tp=abc": ("pool.tp=abc", "a whole number"),
    "pool.tp=3": ("tp=3", "4 attention heads", "1, 2, 4"),
    "pool.pp=2": ("pool.pp=2",),
    "pool.role=prefil": ("pool.role=prefil", "both, prefill, decode"),
    "pool.role=prefill": ("role prefill", "no pool of role decode", "name both in pools"),
    "pool.node=n1": ("node 'n1'",),
    "pool.node=3": ("pool.node=3", "conf/node"),
    "pool.node={_target_:airi_sim.hardware.network.Node,name:n,nics:9}": ("from 1 to 8 nics, not 9",),
    "transfer.together=1": ("transfer.together=1", "true or false"),
    "pools=3": ("pools=3", "null"),
    "pools={a:3}": ("pools.a=3", "mapping"),
    "pools={a:{replicas:x}}": ("pools.a.replicas=x", "a whole number"),
    "pools={a:{kind:[1]}}": ("pools.a.kind=[1]", "text"),
    "pools={a:{kind:xx}}": ("pools.a.kind", "embed, features, generate", "search"),
    "pools={a:{kind:embed}}": ("no pool generates", "pools.a"),
    "pools={a:{model:xx}}": ("unknown model 'xx'", "llama-3.1-8b"),
    "pools={a:{accelerator:h10}}": ("unknown accelerator 'h10'", "did you mean"),
    "pools={a:{server:{block_size:0}}}": ("pools.a.server.block_size=0",),
    "pools={a:{server:{max_num_seqs:10000}}}": ("pools.a.server.max_num_seqs=10000", "8192"),
    "pools={a:{policy:{queue:fcsf}}}": ("'fcsf'", "did you mean 'fcfs'"),
    "pools={a:{policy:{queue:3}}}": ("policy.queue=3", "fcfs"),
    "pools={a:{service:{vectors:0}}}": ("pools.a.service.vectors=0",),
    "services=null": ("services=null",),
    "services.embed=3": ("services.embed=3",),
    "server.max_num_seqs=0": ("server.max_num_seqs=0",),
    "server.max_num_batched_tokens=10": ("max_num_seqs=256", "max_num_batched_tokens=10"),
    "server.block_size=0": ("server.block_size=0",),
    "server.swap_bytes=-1": ("server.swap_bytes=-1", "bytes, 0 or more"),
    "server.swap_bytes=10": ("server.swap_bytes=10", "holds no KV block", "bytes"),
    "server.copy_on_write=1": ("server.copy_on_write=1", "true or false"),
    "server.block_size=null": ("server.block_size=null",),
    "server.kv_blocks=-1": ("server.kv_blocks=-1", "null"),
    "server.max_model_len=1": ("server.max_model_len=1",),
    "server.gpu_memory_utilization=2": ("server.gpu_memory_utilization=2",),
    "server.prefix_caching=maybe": ("server.prefix_caching=maybe", "true or false"),
    "server.chunked_prefill=3": ("server.chunked_prefill=3", "true or false"),
    "engine.fast_forward=2": ("engine.fast_forward=2", "true or false"),
    "engine=3": ("engine=3", "fast_forward"),
    "view.period_s=-1": ("view.period_s=-1", "seconds"),
    "view.period_s=nan": ("view.period_s=nan",),
    "view.period_s=inf": ("view.period_s=inf",),
    "slo.ttft_s=-1": ("slo.ttft_s=-1",),
    "slo=null": ("slo=null",),
    "results.report=maybe": ("results.report=maybe", "true or false"),
    "compare.policies=3": ("compare.policies=3",),
    "compare.repeat=4": ("compare.repeat=4",),
    "calibrate.samples=0": ("calibrate.samples=0",),
    "workload.rate=-1": ("workload.rate", "-1"),
    "workload.rate=1e-320": ("workload.rate=1e-320", "not exact", "raise it"),
    "workload.rate=abc": ("workload.rate=abc", "a number"),
    "workload.n=0": ("workload.n", "0"),
    "workload.n=1.5": ("workload.n=1.5", "a whole number"),
    "workload.burstiness=0": ("workload.burstiness",),
    "workload.input=abc": ("workload.input=abc",),
    "workload.input.kind=normall": ("workload.input.kind", "lognormal"),
    "workload.input.mean=-3": ("workload.input.mean", "-3"),
    "workload.input.max=abc": ("workload.input.max", "abc"),
    "workload.prefix=3": ("workload.prefix=3", "mapping"),
    "workload.prefix.groups=-1": ("workload.prefix.groups",),
    "workload.hash_block=0": ("workload.hash_block",),
    "workload.program=null": ("workload.program=null", "text"),
    "workload.program=os.nothing": ("os.nothing", "module.function"),
    "workload.program=os.getcwd": ("'os.getcwd'", "def getcwd(request)"),
    "workload.program=os.sep": ("'os.sep'", "cannot be called"),
    f"workload.program={MINE}.returns_seven": ("returns_seven' returned 7", "must yield Calls"),
    "workload.tenants=abc": ("workload.tenants", "{name: weight}"),
    "workload.tenants={a:-1}": ("workload.tenants.a",),
    "workload.concurrency=0": ("workload.concurrency=0",),
    "accelerator.bandwidth=abc": ("accelerator.bandwidth=abc", "a number"),
    "accelerator.bandwidth=-1": ("bandwidth", "-1"),
    "accelerator.peak_flops=3": ("accelerator.peak_flops=3",),
    "accelerator.peak_flops={bf16:x}": ("accelerator.peak_flops", "'x'", "number"),
    "accelerator.confidence=xx": ("confidence 'xx'", "high"),
    "accelerator=profile": ("accelerator.path", "airi calibrate"),
    "serving.step_s=abc": ("serving.step_s=abc", "a number"),
    "serving.step_s=-1": ("step_s", "-1"),
    "model.config.num_hidden_layers=abc": ("num_hidden_layers", "abc"),
    "model.config.head_dim=abc": ("abc",),
    "model=hf": ("model.config=path/to/config.json",),
    "backend.name=torhc": ("unknown backend 'torhc'", "did you mean 'torch'"),
    "policy.queue=fcfs": ("policy.queue=fcfs", "policy/queue=NAME", "edf, fcfs, lars"),
    "policy.queue=null": ("policy.queue=null",),
    "~policy.queue": ("policy.queue",),
    "policy.batcher.tokens=abc": ("policy.batcher.tokens=abc", "a whole number or null"),
    "policy.batcher.tokens=0": ("policy.batcher.tokens=0",),
    "policy.queue._target_=3": ("policy.queue", "module.Class"),
    "hydra.run.dir=null": ("hydra.run.dir",),
    "hydra.run.dir=": ("hydra.run.dir=", "the folder of the run"),
    "study.seeds=[0,1,0]": ("study.seeds=[0, 1, 0]", "none of them twice"),
    "study.loads=[1,1.0]": ("study.loads", "none of them twice"),
    "workload.n=${nope}": ("workload.n", "nope"),
    "workload.n=???": ("workload.n",),
    "workload.n=1,2": ("workload.n=1,2", "--multirun"),
}


@pytest.mark.parametrize("override", KEYS)
def test_a_value_of_the_wrong_type_or_range_is_named_with_what_it_must_be(airi: Run, override: str) -> None:
    sentence = airi(override).sentence
    assert all(part in sentence for part in KEYS[override]), sentence


UNKNOWN_KEYS = {
    "seeed=3": "did you mean 'seed'",
    "+nothing=3": "the config has",
    "pool.replica=1": "did you mean 'replicas'",
    "+pool.replica=1": "did you mean 'replicas'",
    "server.block_sise=1": "did you mean 'block_size'",
    "workload.input.meen=1": "did you mean 'mean'",
    "workload.limit=1": "workload has burstiness",
    "accelerator.bandwith=1": "did you mean 'bandwidth'",
    "model.foo=1": "config, name",
    "serving.foo=1": "step_s",
    "backend.device=cpu": "backend has name",
    "policy.foo=3": "queue",
    "policy.queue.patience=3": "policy Fcfs has none",
    "policy/foo=x": "policy/queue",
    "conf/model=tiny": "accelerator",
    "pools={a:{replica:1}}": "did you mean 'replicas'",
    "pools={a:{server:{foo:1}}}": "block_size",
    "pools={a:{policy:{foo:1}}}": "queue",
    "pools={a:{service:{foo:1}}}": "vectors",
    "services.embd.replicas=2": "did you mean 'embed'",
    "results.pictures=true": "timeline",
    "hydra.foo=1": "run",
    "hydra.sweep.dir=there": "hydra.run.dir, the folder of the run",
}


@pytest.mark.parametrize("override", UNKNOWN_KEYS)
def test_an_unknown_key_is_named_with_those_that_exist(airi: Run, override: str) -> None:
    sentence = airi(override).sentence
    assert "unknown" in sentence and UNKNOWN_KEYS[override] in sentence, sentence


CHOICES = {
    "model=lama-3.1-8b": "did you mean 'llama-3.1-8b'",
    "accelerator=h100": "did you mean 'h100-sxm'",
    "serving=vlm": "did you mean 'vllm'",
    "backend=troch": "did you mean 'torch'",
    "workload=poison": "did you mean 'poisson'",
    "experiment=quikstart": "did you mean 'quickstart'",
    "policy/queue=fcsf": "did you mean 'fcfs'",
    "policy/router=p2": "did you mean 'p2c'",
    "policy/batcher=chunked": "did you mean 'chunked_prefill'",
    "policy/admission=alway": "did you mean 'always'",
    "policy/evictor=lur": "did you mean 'lru'",
    "policy/fault=retri": "did you mean 'retry'",
    "policy/model_router=fixd": "did you mean 'fixed'",
    "workload=null": "poisson",
    "model=3": "tiny",
    "~accelerator": "h100-sxm",
    "policy=3": "policy/",
}


@pytest.mark.parametrize("override", CHOICES)
def test_an_unknown_choice_lists_what_exists_and_the_nearest(airi: Run, override: str) -> None:
    assert CHOICES[override] in airi(override).sentence


# -- traces

TRACES = {
    "": ("is empty",),
    HEAD: ("at least one row",),
    "a,b\n1,2\n": ("no known trace header", "azure"),
    HEAD + "0,10,5\n1,-5,5\n": ("trace.csv, line 3, column 'num_prefill_tokens'", "'-5'"),
    HEAD + "0,10,5\n1,nan,5\n": ("trace.csv, line 3, column 'num_prefill_tokens'", "'nan'"),
    HEAD + "0,10,5\nnan,10,5\n": ("trace.csv, line 3, column 'arrived_at'", "'nan'"),
    HEAD + "0,10,5\n\n2,10\n": ("trace.csv, line 4, column 'num_decode_tokens'", "missing"),
    HEAD + "0,many,5\n": ("trace.csv, line 2, column 'num_prefill_tokens'", "'many'"),
    '{"timestamp":0,"input_length":4,"output_length":1}\n{"timestamp":1,"input_length":4}\n': (
        "line 2, column 'output_length'",
        "missing",
    ),
    '{"timestamp":NaN,"input_length":4,"output_length":1}\n': ("line 1, column 'timestamp'", "nan"),
    '{"timestamp":0,\n': ("line 1", "JSON"),
}


@pytest.mark.parametrize("content", TRACES)
def test_a_bad_trace_is_named_by_file_line_and_column(airi: Run, tmp_path: Path, content: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(content)
    sentence = airi("workload=trace", f"workload.path='{file}'").sentence
    assert all(part in sentence for part in ("trace.csv", *TRACES[content])), sentence


TRACE_KEYS = {
    "workload.path=nothing.csv": ("nothing.csv", "data.dir"),
    "workload.path=null": ("workload.path",),
    "workload.path=tests": ("'tests' is a folder, not a file",),
    "data.dir=/nowhere": ("/nowhere",),
    "workload.format=azur": ("azur", "did you mean 'azure'"),
    "workload.limit=0": ("workload.limit",),
    "workload.start_s=-1": ("workload.start_s",),
    "workload.rate_scale=0": ("workload.rate_scale",),
    "workload.scale.input=0": ("workload.scale.input",),
    "workload.scale=3": ("workload.scale=3",),
    "workload.n=3": ("unknown key 'workload.n'", "limit"),
}


@pytest.mark.parametrize("override", TRACE_KEYS)
def test_keys_of_a_trace(airi: Run, override: str) -> None:
    sentence = airi("workload=trace", "workload.path=not_here", override).sentence
    assert all(part in sentence for part in TRACE_KEYS[override]), sentence


def test_rows_out_of_order_are_sorted_and_a_warning_says_so(airi: Run, tmp_path: Path) -> None:
    file = tmp_path / "late.csv"
    file.write_text(HEAD + "3,10,5\n0,20,5\n")
    done = airi("workload=trace", f"workload.path='{file}'")
    requests, summary = _written(done.folder)
    assert done.code == 0
    assert requests.prompt_tokens.tolist() == [20, 10]
    (warning,) = [text for text in summary["provenance"]["warnings"] if "sorted" in text]
    assert "1 rows" in warning and warning in done.out


def test_what_can_never_run_is_rejected_with_a_reason_and_the_rest_goes_on(airi: Run, tmp_path: Path) -> None:
    file = tmp_path / "long.csv"
    file.write_text(HEAD + "0,10,5\n1,5000,5\n2,1500,5\n3,600,5\n")
    done = airi(
        "workload=trace", f"workload.path='{file}'", "server.kv_blocks=64", "server.chunked_prefill=false",
        "server.max_num_batched_tokens=512",
    )  # fmt: skip
    requests, summary = _written(done.folder)
    assert requests.status.tolist() == ["finished", "rejected", "rejected", "rejected"]
    assert requests.reason.str.contains("limit of 1024").tolist() == [False, True, True, False]
    assert "max_num_batched_tokens=512" in requests.reason[3]
    assert summary["requests"]["rejected"] == 3
    assert "3 requests were rejected" in done.out


def test_the_limit_of_the_model_counts_too(airi: Run, tmp_path: Path) -> None:
    file = tmp_path / "long.csv"
    file.write_text(HEAD + "0,5000,5\n1,90,50\n")
    done = airi("workload=trace", f"workload.path='{file}'")
    requests, _ = _written(done.folder)
    assert requests.status.tolist() == ["rejected", "finished"]
    assert "4096" in requests.reason[0]


def _written(folder: Path):  # type: ignore[no-untyped-def]
    from airi_sim.results.run import load

    run = load(folder)
    return run.requests, run.summary


# -- models and devices


def test_a_model_that_does_not_fit_says_how_much_it_needs_and_the_smallest_tp(airi: Run) -> None:
    sentence = airi("model=llama-3.1-70b", "accelerator=l4").sentence
    assert all(part in sentence for part in ("1.44e+11 bytes", "2.13e+10", "smallest tp that fits is 8"))
    fitting = airi("model=llama-3.1-70b", "accelerator=l4", "pool.tp=8", "workload.n=2")
    assert fitting.code == 0, fitting.err


@pytest.mark.parametrize(
    ("content", "part"), [(None, "cannot read"), ("{", "not valid JSON"), ('{"a": 1}', "not a calibration profile")]
)
def test_an_unreadable_profile(airi: Run, tmp_path: Path, content: str | None, part: str) -> None:
    file = tmp_path / "profile.json"
    if content is not None:
        file.write_text(content)
    sentence = airi("accelerator=profile", f"accelerator.path='{file}'").sentence
    assert part in sentence and "airi calibrate" in sentence


@pytest.mark.parametrize(("content", "part"), [(None, "cannot read"), ("[1]", "JSON object"), ("{}", "hidden_size")])
def test_an_unreadable_model_config(airi: Run, tmp_path: Path, content: str | None, part: str) -> None:
    file = tmp_path / "config.json"
    if content is not None:
        file.write_text(content)
    sentence = airi("model=hf", f"model.config='{file}'").sentence
    assert part in sentence or "num_attention_heads" in sentence


def test_an_output_folder_below_a_file(airi: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sentence = airi("workload.n=3", f"hydra.run.dir='{tmp_path / 'file' / 'run'}'").sentence
    assert "cannot be written" in sentence and "hydra.run.dir" in sentence


def test_services_that_a_program_calls_must_be_there(airi: Run) -> None:
    assert "services.embed" in airi("workload.program=rag", "~services.embed").sentence
    assert "rename it" in airi("workload.program=rag", "pools={search:{model:tiny}}").sentence


# -- torch


@pytest.mark.real
@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("backend.device=gpu",), "auto, cpu, cuda"),
        (("backend.clock=wal",), "did you mean 'wall'"),
        (("backend.precision=fp8",), "bf16, fp16, fp32"),
        (("backend.weights=3",), "backend.weights=3"),
        (("backend.weights={tinny: x}",), "did you mean 'tiny'"),
        (("backend.cocalibrate=3",), "backend.cocalibrate=3"),
        (("pool.tp=3",), "choose a tp that divides 4"),
        (("model=llama-3.1-405b",), "bytes"),
    ],
)
def test_keys_of_the_torch_backend(airi: Run, words: tuple[str, ...], part: str) -> None:
    assert part in airi("backend=torch", "workload.n=3", *words).sentence


@pytest.mark.real
def test_cuda_asked_for_and_absent(airi: Run) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert "no CUDA device" in airi("backend=torch", "backend.device=cuda").sentence


def test_torch_absent(tmp_path: Path) -> None:
    """In a process of its own, in which torch cannot be imported."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from airi_sim.workbench.cli import main\n"
        f"sys.exit(main(['run', 'backend=torch', 'model=tiny', 'hydra.run.dir={tmp_path / 'r'}']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "pip install 'airi-sim[real]'" in done.stderr
    assert not list(tmp_path.iterdir())


# -- policies that cannot be made

CLASSES = {
    "nothing.Here": ("nothing.Here", "cannot be imported", "No module named 'nothing'"),
    "Nothing": ("module.Class",),
    f"{MINE}.LackPop": ("LackPop", "did you mean 'LacksPop'"),
    f"{MINE}.no_class": ("no class",),
    f"{MINE}.LacksPop": ("policy LacksPop", "no method 'pop'"),
    f"{MINE}.OtherArguments": ("policy OtherArguments", "'push' must take (job, now)"),
    f"{MINE}.ChargesNobody": ("policy ChargesNobody", "'serve'"),
    f"{MINE}.CannotBeMade": ("CannotBeMade", "RuntimeError: out of luck"),
    f"{MINE}.Patient": ("policy Patient", "policy.queue.patience"),
    f"{MINE}.Patient policy.queue.patience=x": ("policy.queue.patience=x", "a number"),
    f"{MINE}.Patient policy.queue.patients=1": ("policy Patient has patience, mode", "did you mean 'patience'"),
}


@pytest.mark.parametrize("target", CLASSES)
def test_a_class_that_cannot_be_a_policy(airi: Run, target: str) -> None:
    sentence = airi(*f"policy.queue._target_={target}".split()).sentence
    assert all(part in sentence for part in CLASSES[target]), sentence


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("import nothing_at_all", "No module named 'nothing_at_all'"),
        ("x = 1 / 0", "ZeroDivisionError"),
        ("def (", "SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported(
    airi: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, part: str
) -> None:
    name = f"broken_{abs(hash(content))}"
    (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert part in airi(f"policy.queue._target_={name}.Mine").sentence


# -- policies that answer nonsense: the policy and the rule are named

NONSENSE = {
    "router._target_={}.ToReplica policy.router.replica=99": ("policy ToReplica", "replica 99", "from 0 to 0"),
    "router._target_={}.ToReplica policy.router.replica=-1": ("policy ToReplica", "replica -1", "from 0 to 0"),
    "router._target_={}.ToReplica policy.router.replica=null": ("policy ToReplica", "replica None"),
    "router._target_={}.ToReplica policy.router.replica=a": ("policy ToReplica", "replica 'a'"),
    "model_router._target_={}.ToPool pools={{a:{{}},b:{{}}}}": ("policy ToPool", "'elsewhere'", "a, b"),
    "batcher._target_={}.OverBudget": ("policy OverBudget", "budget", "max_num_batched_tokens=256"),
    "batcher._target_={}.AdmitsTwice": ("policy AdmitsTwice", "twice"),
    "batcher._target_={}.AdmitsText": ("policy AdmitsText", "'a job'"),
    "batcher._target_={}.KeepsInQueue": ("KeepsInQueue", "pop each job it admits once"),
    "batcher._target_={}.PreemptsWaiting": ("policy PreemptsWaiting", "not running"),
    "batcher._target_={}.Wakes policy.batcher.after_s=0": ("policy Wakes", "must be later"),
    "batcher._target_={}.Wakes policy.batcher.after_s=-1": ("policy Wakes", "must be later"),
    "batcher._target_={}.NoHorizon": ("NoHorizon", "cannot be used"),
    "queue._target_={}.PeeksText": ("PeeksText", "'a job'"),
    "queue._target_={}.PopsAnother": ("PopsAnother", "twice"),
    "queue._target_={}.NeverPops": ("NeverPops", "twice"),
    "queue._target_={}.LengthOfText": ("LengthOfText", "cannot be used"),
    "evictor._target_={}.Evicts": ("policy Evicts", "None as victim", "not one of the running jobs"),
    "evictor._target_={}.Evicts policy.evictor.victim=7": ("policy Evicts", "7 as victim"),
    "evictor._target_={}.EvictsAgain": ("policy EvictsAgain", "not one of the running jobs"),
    "admission._target_={}.Answers": ("policy Answers", "None", "Verdict"),
    "admission._target_={}.Answers policy.admission.answer=true": ("policy Answers", "True", "Verdict"),
    "admission._target_={}.Later policy.admission.retry_s=0": ("policy Later", "retry_s=0", "more than 0"),
    "admission._target_={}.Later policy.admission.retry_s=-1.5": ("policy Later", "retry_s=-1.5"),
    "admission._target_={}.Later policy.admission.retry_s=inf": ("policy Later", "finite"),
    "admission._target_={}.Later policy.admission.retry_s=soon": ("policy Later", "'soon'"),
}


@pytest.mark.parametrize("override", NONSENSE)
def test_nonsense_names_the_policy_and_the_rule_it_broke(airi: Run, override: str) -> None:
    sentence = airi(*TIGHT, *f"policy.{override}".format(MINE).split()).sentence
    assert all(part in sentence for part in NONSENSE[override]), sentence


# -- policies under which nothing moves: the watchdog

STUCK = {
    "queue._target_={}.PeeksNothing": ("default/0", "PeeksNothing", "30 jobs (0, 1000,"),
    "batcher._target_={}.Idle": ("default/0", "Idle", "30 jobs (0, 1000,"),
    "batcher._target_={}.NeverDecodes": ("default/0", "NeverDecodes", "jobs ("),
    "batcher._target_={}.Circles": ("default/0", "Circles", "no progress", "jobs "),
    "batcher._target_={}.Wakes policy.batcher.after_s=0.01": ("default/0", "Wakes", "30 jobs (0, 1000,"),
    "admission._target_={}.Later policy.admission.retry_s=2": ("policy Later", "30 jobs (0, 1000,"),
    "admission._target_={}.Later policy.admission.retry_s=1e-300": ("policy Later", "jobs ("),
}


@pytest.mark.parametrize("override", STUCK)
def test_a_run_in_which_nothing_moves_ends_and_says_who_holds_what(
    airi: Run, monkeypatch: pytest.MonkeyPatch, override: str
) -> None:
    monkeypatch.setattr(runtime, "WAITS_EACH", 100)
    monkeypatch.setattr(token_server, "STALL_PASSES", 500)
    sentence = airi(*TIGHT, *f"policy.{override}".format(MINE).split()).sentence
    assert all(part in sentence for part in STUCK[override]), sentence


# -- verbs that run several sets of policies refuse a bad one before the first runs

SETS = {
    "{queue: fcsf}": "did you mean 'fcfs'",
    "{queue: {_target_: mine.Nothing}}": "mine.Nothing",
    "{queue: {_target_: tests.fixtures.nonsense.LacksPop}}": "no method 'pop'",
    "{queeue: fcfs}": "'queeue'",
    "3": "mapping",
}


@pytest.mark.parametrize("bad", SETS)
def test_a_bad_set_of_policies_is_refused_before_the_good_one_runs(airi: Run, bad: str) -> None:
    sets = f"{{good: {{queue: fcfs}}, bad: {bad}}}"
    assert SETS[bad] in airi(f"study.policies={sets}", verb="study").sentence


@pytest.mark.real
@pytest.mark.parametrize("bad", ["{queue: fcsf}", "{queue: {_target_: mine.Nothing}}"])
def test_so_does_a_comparison(airi: Run, bad: str) -> None:
    sets = f"{{good: {{queue: fcfs}}, bad: {bad}}}"
    assert SETS[bad] in airi(f"compare.policies={sets}", verb="compare").sentence


# -- policies that crash

CRASHES = {
    f"policy.queue._target_={MINE}.CrashesLate": ("policy CrashesLate", "'pop'", "AttributeError", "nonsense.py, line"),
    f"policy.queue._target_={MINE}.ForgotSuper": ("policy ForgotSuper", "'push'", "AttributeError", "_jobs"),
    f"workload.program={MINE}.yields_text": ("yields_text", "must yield a Call"),
    f"workload.program={MINE}.bad_program": ("'bad_program'", "AttributeError", "nothing_of_that_name"),
}


@pytest.mark.parametrize("override", CRASHES)
def test_a_crash_in_a_plug_in_names_class_method_and_error(airi: Run, override: str) -> None:
    sentence = airi(*SHORT, override).sentence
    assert all(part in sentence for part in CRASHES[override]), sentence


def test_a_crash_of_ours_is_not_blamed_on_anybody(airi: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.Runtime, "finish", None)
    with pytest.raises(TypeError, match="not callable"):
        airi(*SHORT)
