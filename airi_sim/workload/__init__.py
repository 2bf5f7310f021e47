"""Floor 3: what arrives when, and how long it is: traces, generators, tenants, programs, scripts."""

from airi_sim.workload.programs import PROGRAMS, program
from airi_sim.workload.script import LengthScript
from airi_sim.workload.synthetic import Synthetic
from airi_sim.workload.tenants import Labelled, build
from airi_sim.workload.traces import Scale, Trace
from airi_sim.workload.writer import write_jsonl

__all__ = ["PROGRAMS", "Labelled", "LengthScript", "Scale", "Synthetic", "Trace", "build", "program", "write_jsonl"]
