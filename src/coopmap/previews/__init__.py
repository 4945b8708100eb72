"""Samples of a data set as pages to look at."""
