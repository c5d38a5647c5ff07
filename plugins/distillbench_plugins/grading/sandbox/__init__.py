"""Runs model code in isolation: `Sandbox` (sandbox.py) is the trusted side, all else runs inside.

A warm server (server.py) runs in the isolation that isolation.py finds, and forks one confined child (confinement.py)
for each job; what the child does is its runner's (runners/). The modules that run inside import one another relatively,
because there they are not part of distillbench.
"""
