"""Masks on frames, captions, plots."""
