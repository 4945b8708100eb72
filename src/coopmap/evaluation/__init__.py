"""Evaluation of a checkpoint: metrics per sample and per pair, baselines, confidence intervals, a report."""
