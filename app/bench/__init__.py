"""`make bench`: the platform against plain vLLM on the same machine, alternating, as ratios."""
