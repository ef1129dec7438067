"""Grounding DINO: the boxes that an expression names, the second source of prompt masks."""
