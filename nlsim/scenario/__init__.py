"""Plain validated values that fix a run, read from TOML. No torch."""
