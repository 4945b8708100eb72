"""Several runs side by side: figures over seeds, costs, curves."""
