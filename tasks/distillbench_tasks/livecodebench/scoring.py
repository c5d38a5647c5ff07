"""How the stock `lm_eval` command scores LiveCodeBench: as the `code_livecodebench` grader does."""

from distillbench_tasks.scoring import graded_by

process_results = graded_by("code_livecodebench", "pass@1")
