"""How the stock `lm_eval` command scores Codeforces: as the `code_codeforces` grader does."""

from distillbench_tasks.scoring import graded_by

process_results = graded_by("code_codeforces", "pass@1")
