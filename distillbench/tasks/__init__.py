"""lm-eval task YAML: `identity` reads it without lm_eval, `loader` loads it with lm_eval's own TaskManager."""
