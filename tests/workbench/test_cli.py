"""The command line: flags, help, run folders, several runs at once, and what happens when one is interrupted."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING

import pytest
import yaml
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from airi_sim.core.errors import BadInput
from airi_sim.results.run import load
from airi_sim.workbench import config as configs
from airi_sim.workbench import execute as execution
from airi_sim.workbench.cli import FLAGS, VERBS, main
from airi_sim.workbench.folders import run_folder
from airi_sim.workbench.paths import conf_dir, options
from airi_sim.workbench.schema import KEYS, POOL, SERVER

if TYPE_CHECKING:
    from tests.workbench.conftest import Run

FILES = ["config.yaml", "decisions.parquet", "jobs.parquet", "plans.parquet", "requests.parquet", "summary.json"]
ROOT = Path(__file__).parents[2]
FEW = "workload.n=12"


def process(*words: str, cwd: Path = ROOT, code: str = "") -> subprocess.CompletedProcess[str]:
    run = ["-c", code] if code else ["-m", "airi_sim.workbench.cli", *words]
    return subprocess.run([sys.executable, *run], cwd=cwd, capture_output=True, text=True, timeout=60)


# -- flags and help


def test_without_a_verb_the_usage_is_an_error_with_help_it_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    asked, told = capsys.readouterr()
    assert asked == "" and all(verb in told for verb in VERBS)
    for flag in ("--help", "-h"):
        assert main([flag]) == 0
        assert capsys.readouterr() == (told, "")


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_lists_every_group_choice_key_and_flag(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    for group in ("model", "accelerator", "workload", "policy/queue", "policy/router"):
        assert f"{group}: {', '.join(options(group))}" in text
    keys = [*KEYS, *SERVER, "replicas", "tp", "hydra.run.dir"]
    assert [key for key in keys if key.split(".")[-1] not in text and not key.startswith("workload")] == []
    assert all(flag in text for flag in FLAGS)


@pytest.mark.parametrize(
    ("words", "part"),
    [(["rum"], "did you mean 'run'"), (["run", "--hlep"], "did you mean '--help'"), (["run", "-x"], "unknown flag")],
)
def test_unknown_verbs_and_flags(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert part in capsys.readouterr().err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    from airi_sim import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"airi_sim {__version__}\n"


@pytest.mark.parametrize("flags", [("--cfg",), ("--cfg", "job"), ("-c", "job", "--resolve")])
def test_cfg_prints_the_whole_config_and_runs_nothing(airi: Run, flags: tuple[str, ...]) -> None:
    done = airi(*flags, "seed=7", "workload.tenants={a: 1, b: 2}")
    shown = yaml.safe_load(done.out)
    assert (done.code, done.left) == (0, [])
    assert shown["seed"] == shown["workload"]["seed"] == 7
    assert shown["workload"]["tenants"] == {"a": 1, "b": 2}
    assert {"pool", "server", "model", "accelerator", "policy"} <= shown.keys() and "hydra" not in shown


@pytest.mark.parametrize("how", ["--debug", "HYDRA_FULL_ERROR"])
def test_debug_shows_the_traceback(airi: Run, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "HYDRA_FULL_ERROR":
        monkeypatch.setenv(how, "1")
    target = "policy.queue._target_=tests.fixtures.nonsense.CrashesLate"
    with pytest.raises(BadInput, match="CrashesLate") as caught:
        airi(target, FEW, *([how] if how in FLAGS else []))
    assert isinstance(caught.value.__cause__, AttributeError)


@pytest.mark.parametrize("override", ["seed", "=3", "a=b=c", "seed={", "workload.tenants={a:1", "run"])
def test_what_hydra_cannot_parse_is_quoted_back(airi: Run, override: str) -> None:
    sentence = airi(override).sentence
    assert f"'{override}'" in sentence and "key=value" in sentence


# -- the run folder


def test_results_on_stdout_nothing_on_stderr_everything_in_the_folder(airi: Run) -> None:
    done = airi(FEW)
    assert (done.code, done.err) == (0, "")
    assert f"run folder: {done.folder}" in done.out
    assert {path.name for path in done.folder.iterdir()} >= {*FILES}
    assert all(not path.name.startswith(".") for path in done.folder.iterdir())


@pytest.mark.parametrize("name", ["a b", "key=value", "a,b", "it's", "deep/down/there", "ünï"])
def test_the_run_folder_may_have_any_name(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    quoted = str(tmp_path / name).replace("'", "\\'")
    assert main(["run", FEW, "model=tiny", f"hydra.run.dir='{quoted}'"]) == 0, capsys.readouterr().err
    assert (tmp_path / name / "summary.json").is_file()


def test_a_relative_folder_is_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", FEW, "model=tiny", "hydra.run.dir=here/run"]) == 0
    assert main(["run", FEW, "model=tiny"]) == 0
    assert (tmp_path / "here" / "run" / "summary.json").is_file()
    assert len(list(tmp_path.glob("runs/*/*/summary.json"))) == 1


def test_the_same_command_twice_gives_the_same_bytes_and_decisions(airi: Run, tmp_path: Path) -> None:
    words = ("workload.n=200", "workload.rate=300", "pool.replicas=3", "policy/router=p2c", "policy/queue=vtc",
             "workload.tenants={a: 3, b: 1}", "server.kv_blocks=300")  # fmt: skip
    first = airi(*words).folder
    again = tmp_path / "again"
    assert main(["run", "model=tiny", "accelerator=l4", f"hydra.run.dir={again}", *words]) == 0
    for name in ("requests.parquet", "jobs.parquet", "plans.parquet", "decisions.parquet", "config.yaml"):
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    hashes = {load(folder).summary["decisions_hash"] for folder in (first, again)}
    assert len(hashes) == 1
    other = tmp_path / "other"
    assert main(["run", "model=tiny", "accelerator=l4", f"hydra.run.dir={other}", *words, "seed=1"]) == 0
    assert load(other).summary["decisions_hash"] not in hashes


def test_config_yaml_holds_every_key_and_makes_the_same_run(airi: Run, tmp_path: Path) -> None:
    first = airi("workload.n=100", "workload.rate=300", "pool.replicas=2", "policy/router=p2c", "seed=5").folder
    config = yaml.safe_load((first / "config.yaml").read_text())
    sections = yaml.safe_load((conf_dir() / "config.yaml").read_text())
    assert sections.keys() - {"defaults", "hydra"} <= config.keys()
    assert {"workload", "model", "accelerator", "serving", "backend", "policy"} <= config.keys()
    assert config["server"].keys() == SERVER.keys() and config["pool"].keys() <= POOL.keys()
    execution.execute(config, tmp_path / "again")
    assert (tmp_path / "again" / "requests.parquet").read_bytes() == (first / "requests.parquet").read_bytes()


def test_a_folder_that_exists_is_replaced_file_by_file(airi: Run) -> None:
    assert airi("workload.n=5").code == 0
    done = airi("workload.n=9")
    assert load(done.folder).summary["requests"]["offered"] == 9


# -- interrupted


def test_ctrl_c_in_the_run_leaves_nothing(airi: Run) -> None:
    done = airi("workload.n=300", "policy.batcher._target_=tests.fixtures.nonsense.Interrupts")
    assert (done.code, done.left) == (130, [])
    assert "interrupted" in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize("crash", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_nothing_or_the_old_run(
    airi: Run, monkeypatch: pytest.MonkeyPatch, crash: type[BaseException]
) -> None:
    def fail(*_: object) -> None:
        raise crash

    def attempt(*words: str) -> list[str]:
        with monkeypatch.context() as patch:
            patch.setattr(execution, "write_summary", fail)
            if crash is KeyboardInterrupt:
                return airi(*words).left
            with pytest.raises(crash):
                airi(*words)
            return []

    assert attempt("workload.n=5") == []
    done = airi("workload.n=5")
    before = {path.name: path.read_bytes() for path in done.folder.iterdir()}
    attempt("workload.n=9")
    assert {path.name: path.read_bytes() for path in done.folder.iterdir()} == before


# -- several runs at once


def test_multirun_runs_every_combination_in_a_folder_of_its_own(airi: Run) -> None:
    done = airi("-m", FEW, "policy/queue=fcfs,vtc", "pool.replicas=choice(2)", "seed=range(3,5)")
    assert done.code == 0, done.err
    configs = [yaml.safe_load((done.folder / str(i) / "config.yaml").read_text()) for i in range(4)]
    found = [(c["policy"]["queue"]["_target_"][-4:], c["pool"]["replicas"], c["seed"]) for c in configs]
    assert found == [("Fcfs", 2, 3), ("Fcfs", 2, 4), (".Vtc", 2, 3), (".Vtc", 2, 4)]
    assert sorted(path.name for path in done.folder.iterdir()) == ["0", "1", "2", "3"]
    lines = done.out.strip().splitlines()[-4:]
    assert lines[-1].startswith(f"{done.folder}/3  policy/queue=vtc pool.replicas=2 seed=4  requests finished 12 of 12")


def test_multirun_over_all_choices_of_a_group(airi: Run) -> None:
    done = airi("--multirun", FEW, "policy/queue=glob(*)")
    assert len(list(done.folder.iterdir())) == len(options("policy/queue"))


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("policy/queue=fcfs,vtcc",), "did you mean 'vtc'"),
        (("pool.replicas=1,0",), "pool.replicas=0"),
        (("policy/queue=glob(x*)",), "fcfs"),
        (("workload.rate=interval(1,2)",), "interval"),
    ],
)
def test_multirun_with_one_bad_value_runs_nothing(airi: Run, words: tuple[str, ...], part: str) -> None:
    assert part in airi("-m", FEW, *words).sentence


def test_quotes_make_commas_one_value(airi: Run) -> None:
    done = airi("-m", FEW, "workload.name='a,b'", "seed=1,2")
    names = [yaml.safe_load((done.folder / str(i) / "config.yaml").read_text())["workload"]["name"] for i in (0, 1)]
    assert names == ["a,b", "a,b"]


def test_multirun_without_several_values_is_one_run(airi: Run) -> None:
    assert [path.name for path in airi("-m", FEW).folder.iterdir()] == ["0"]


def test_multirun_names_the_combination_that_fails_when_it_is_built(airi: Run) -> None:
    done = airi("-m", FEW, "workload.program=chat,nobodys")
    assert done.code == 2
    assert done.err.startswith("airi: workload.program=nobodys: ") and "'nobodys'" in done.err


# -- run folders by default


def test_every_command_has_a_run_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["model=tiny", "accelerator=l4", "workload.n=3"]
    for flags in ([], [], ["-m"], ["-m"]):
        assert main(["run", *flags, *words]) == 0
    assert len(list(tmp_path.rglob("summary.json"))) == 4
    left = sorted(tmp_path.rglob("*"))
    assert main(["run", "workload=trace", "workload.path=nothing"]) == 2
    assert sorted(tmp_path.rglob("*")) == left


def test_a_second_shared_by_many_gives_numbered_folders_that_go_when_they_stay_empty(tmp_path: Path) -> None:
    wanted = tmp_path / "runs" / "10-00-00"
    config = OmegaConf.create({"hydra": {"run": {"dir": str(wanted)}}})
    everybody = Barrier(8)

    def work(number: int) -> Path:
        with run_folder(config, ["seed=1"]) as folder:
            everybody.wait(timeout=20)
            if number % 2:
                (folder / "summary.json").touch(exist_ok=False)
        return folder

    with ThreadPoolExecutor(8) as pool:
        names = {folder.name for folder in pool.map(work, range(8))}
    assert names == {"10-00-00", *(f"10-00-00-{number}" for number in range(2, 9))}
    assert len(list(wanted.parent.iterdir())) == 4
    with run_folder(config, [f"hydra.run.dir='{wanted}'"]) as folder:
        assert folder == wanted


@pytest.mark.parametrize("verb", ["run", "study"])
def test_an_interrupt_that_hydra_wraps_is_still_one(airi: Run, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    def stopped(*_: object, **__: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ConfigCompositionException from error

    monkeypatch.setattr(configs, "compose", stopped)
    done = airi(verb=verb)
    assert (done.code, done.out, done.left) == (130, "", [])
    assert done.err == "airi: interrupted; nothing was written that is not complete.\n"


# -- traces of every format

FORMATS = {
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,30,4\n2023-11-16 18:17:05,10,3\n",
    "vidur": "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,30,4\n1.5,10,3\n",
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,GPT-4,30,4,34,API log\n"
    "6,ChatGPT,10,3,13,API log\n",
    "mooncake": '{"timestamp": 0, "input_length": 30, "output_length": 4, "hash_ids": [1]}\n'
    '{"timestamp": 900, "input_length": 10, "output_length": 3, "hash_ids": [1]}\n',
    "airi": '{"timestamp": 0, "input_length": 30, "output_length": 4, "tenant": "a"}\n'
    '{"timestamp": 900, "input_length": 10, "output_length": 3}\n',
}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_named_or_found_out(airi: Run, tmp_path: Path, name: str, named: bool) -> None:
    file = tmp_path / "trace"
    file.write_text(FORMATS[name])
    words = (f"workload.format={name}",) if named else ()
    done = airi("workload=trace", f"workload.path='{file}'", *words)
    assert done.code == 0, done.err
    requests = load(done.folder).requests
    assert requests.prompt_tokens.tolist() == [30, 10] and requests.output_tokens.tolist() == [4, 3]


def test_published_traces(airi: Run, data_dir: Path) -> None:
    files = sorted(path for path in (data_dir / "traces").iterdir() if path.suffix in (".csv", ".jsonl"))
    assert files
    for file in files:
        done = airi("workload=trace", f"workload.path='{file}'", "workload.limit=200", "model=llama-3.1-8b")
        assert done.code == 0, (file, done.err)
        assert load(done.folder).summary["requests"]["offered"] == 200, file


# -- as a process


def test_a_policy_beside_the_user_is_importable_and_runs(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from airi_sim.policies.queues import Fcfs\n\n\nclass Lifo(Fcfs):\n"
        "    def __init__(self, depth: int):\n        super().__init__()\n\n"
        "    def peek(self, now):\n        return self._jobs[-1] if self._jobs else None\n\n"
        "    def pop(self, now):\n        return self._jobs.pop()\n"
    )
    words = ("run", FEW, "model=tiny", "policy.queue._target_=mine.Lifo", "hydra.run.dir=r")
    done = process(*words, "policy.queue.depth=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["requests"]["finished"] == 12
    wrong = process(*words, "policy.queue.dept=2", cwd=tmp_path)
    assert wrong.returncode == 2 and "did you mean 'depth'" in wrong.stderr


def test_bad_input_as_a_process(tmp_path: Path) -> None:
    done = process("run", "model=tiny", "pool.tp=3", f"hydra.run.dir={tmp_path / 'r'}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert not list(tmp_path.iterdir())


def test_a_run_imports_neither_torch_nor_pictures(tmp_path: Path) -> None:
    code = (
        "import sys; from airi_sim.workbench.cli import main\n"
        f"main(['run', '{FEW}', 'model=tiny', 'hydra.run.dir={tmp_path / 'r'}'])\n"
        "print([m for m in ('torch', 'matplotlib', 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = process(code=code)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
