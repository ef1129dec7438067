"""J, F and J&F, benchmark protocols, the oracle, and how sure a difference is."""
