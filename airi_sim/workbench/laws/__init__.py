"""The laws every policy must keep, and the small random worlds they are tried in (see workbench.check)."""
