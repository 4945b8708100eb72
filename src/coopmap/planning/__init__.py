"""What a run will take of memory and time, before it runs (docs/plan.md)."""
