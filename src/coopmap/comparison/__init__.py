"""Several runs side by side: metrics over seeds, costs, curves."""
