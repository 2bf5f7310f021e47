"""The experiments, a module a family: each has `experiments() -> list[Experiment]`."""
