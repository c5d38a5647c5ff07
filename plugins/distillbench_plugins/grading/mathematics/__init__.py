"""Whether a mathematical answer equals the gold answer: exact, or by math-verify in its own process."""
