"""How the stock `lm_eval` command scores AIME: as the `math_boxed` grader does."""

from distillbench_tasks.scoring import graded_by

process_results = graded_by("math_boxed", "exact_match", gold="answer")
