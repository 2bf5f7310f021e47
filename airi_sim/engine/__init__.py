"""Floor 4: the simulated world. SimPy drives the runtime; executors say how long plans take."""
