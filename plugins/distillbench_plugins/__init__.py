"""The built-in plugins of distillbench; each module registers itself through the same hooks as a third party."""
