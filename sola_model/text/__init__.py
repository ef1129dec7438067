"""Expressions -> features of a frozen text encoder, kept on disk."""
