"""Evaluation of a checkpoint: figures per sample and per pair, baselines beside them, intervals, a report."""
