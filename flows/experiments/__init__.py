"""The paper's tables and figures and some of our own, each a function of a `Setup`.

Each prepares its splits, trains and evaluates what the warehouse lacks, and returns what it
measured; `flows.experiment` publishes and shows that. See docs/experiments.md.
"""
