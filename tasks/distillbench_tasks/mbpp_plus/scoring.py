"""How the stock `lm_eval` command scores MBPP+: as the `code_evalplus` grader does."""

from distillbench_tasks.scoring import graded_by

process_results = graded_by("code_evalplus", "pass@1", {"dataset": "mbpp"})
