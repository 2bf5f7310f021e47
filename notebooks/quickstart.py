# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quickstart: from a run to a policy of your own
#
# Five steps: run a workload, look at it, draw it, write a policy, compare it with a built-in one on the same requests.
# Everything here is simulated and takes seconds. The same policy runs measured, on torch, by adding `backend=torch`;
# `airi compare` puts the two worlds side by side.

# %%
import os
from pathlib import Path

import pandas as pd

import airi_sim
from airi_sim.results.plots import Pictures

REQUESTS = int(os.environ.get("QUICKSTART_REQUESTS", "2000"))
WORKLOAD = ["workload=azure_like", f"workload.n={REQUESTS}", "workload.rate=60", "pool.replicas=2", "seed=7"]

# %% [markdown]
# ## 1. A run
#
# A list of overrides, the same as on the command line: `airi run workload=azure_like ...`. The workload imitates the
# lengths and gaps of the Azure conversation trace; the model is Llama 3.1 8B on two simulated H100.

# %%
run = airi_sim.run([*WORKLOAD, "hydra.run.dir=runs/quickstart/fcfs"])
run

# %% [markdown]
# The run is a folder. `airi_sim.load(folder)` opens it again, tomorrow or on another machine.

# %%
run = airi_sim.load("runs/quickstart/fcfs")
sorted(path.name for path in run.folder.iterdir())

# %% [markdown]
# ## 2. Its tables
#
# `requests`, `jobs`, `plans` and `decisions` are data frames; `summary` is a dictionary. Times are seconds.

# %%
run.requests.head()

# %%
run.summary["ttft_s"]

# %% [markdown]
# Anything else is a line of pandas: do long prompts wait longer for their first token?

# %%
requests = run.requests.assign(ttft_s=lambda r: r.first_token_s - r.arrival_s)
requests.groupby(requests.prompt_tokens // 1024 * 1024).ttft_s.describe(percentiles=[0.5, 0.95]).round(3)

# %% [markdown]
# ## 3. A figure

# %%
run.plot.latency_cdf()

# %%
run.plot.queue_over_time()

# %% [markdown]
# ## 4. A policy of your own
#
# A policy is a plain class in a file: no base class, no registry (restart the kernel after an edit). This queue serves
# short prompts first, but nobody waits longer than `patience` seconds for that. (A queue may also say for how long its
# head stays the head, which lets the engine run many passes at once; without that it is asked at every pass: slower,
# never wrong.)

# %%
_ = Path("my_queue.py").write_text('''\
"""Short prompts first, but who waits longer than `patience` seconds goes before all others."""


class PatientSjf:
    def __init__(self, patience: float = 5.0) -> None:
        self.patience = patience
        self.jobs = []

    def push(self, job, now):
        self.jobs.append(job)

    requeue = push

    def peek(self, now):
        def order(job):
            late = now > job.arrived + self.patience
            return (not late, job.arrived if late else job.tokens, job.id)

        return min(self.jobs, key=order, default=None)

    def pop(self, now):
        job = self.peek(now)
        self.jobs.remove(job)
        return job

    def __len__(self):
        return len(self.jobs)
''')

# %% [markdown]
# `_target_` names the class, and its arguments are keys. A wrong name or a missing method is one clear sentence.

# %%
mine = airi_sim.run(
    [
        *WORKLOAD,
        "policy.queue._target_=my_queue.PatientSjf",
        "policy.queue.patience=5.0",
        "hydra.run.dir=runs/quickstart/patient_sjf",
    ]
)
mine

# %% [markdown]
# ## 5. Two policies, the same requests
#
# The seed fixes every request, so runs differ by the policy only, and request by request: a paired comparison.

# %%
ttft = {
    name: one.requests.set_index("request").eval("first_token_s - arrival_s")
    for name, one in {"fcfs": run, "patient_sjf": mine}.items()
}
gain = ttft["fcfs"] - ttft["patient_sjf"]
earlier, later = (gain > 0).mean(), (gain < 0).mean()
print(f"{earlier:.0%} of requests start earlier, {later:.0%} later; mean gain {gain.mean():.3f} s")

# %%
pd.DataFrame({name: sample.describe(percentiles=[0.5, 0.9, 0.99]) for name, sample in ttft.items()}).round(3)

# %% [markdown]
# Several runs in one picture. At this load the queue grows, so somebody must wait: short prompts now start at once, the
# others after their `patience` of 5 s: the step in the first panel.

# %%
both = Pictures([run, mine])
both.names = ["fcfs", "patient_sjf"]
both.latency_cdf()

# %% [markdown]
# ## Next
#
# * In a terminal: `airi compare experiment=quickstart` runs two policies in both worlds and writes a report.
# * `docs/extending.md`: every kind of policy, and what it may decide.
# * `python -m experiments.load_sweep`: up to which load does a policy keep its promises?
