"""Floor 5: build, run, compare, load, and the airi command. The only place where yaml becomes objects."""
