"""Runs a plan: `store` keeps results, `runner` decides what runs, `worker` runs it, `steps` says how."""
