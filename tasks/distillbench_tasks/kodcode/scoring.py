"""How the stock `lm_eval` command scores KodCode: as the `code_kodcode` grader does."""

from distillbench_tasks.scoring import graded_by

process_results = graded_by("code_kodcode", "pass@1")
