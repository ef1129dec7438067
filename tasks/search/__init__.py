"""Language search over all mask tracks."""
