"""How the stock `lm_eval` command scores coins: as the `math_boxed` grader does, on the text after the reasoning."""

from distillbench_tasks.scoring import graded_by

process_results = graded_by("math_boxed", "exact_match", gold="answer")
