"""One module a verb of the `airi` command, each with `command(overrides, show) -> exit code`."""
