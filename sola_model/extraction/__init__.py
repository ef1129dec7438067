"""Videos -> prompt masks -> mask tracks with object tokens, by frozen SAM2 (paper 3.3, 3.4)."""
