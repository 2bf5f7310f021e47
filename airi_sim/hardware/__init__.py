"""Floor 3: how long things take: accelerators, cost models in closed form, models fitted to measurements."""
