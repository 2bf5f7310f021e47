"""Floor 4, the measured world: torch executors behind the same seam as the simulator's (the only folder with torch)."""
