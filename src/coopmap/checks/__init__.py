"""The gate before a long run: what a data set holds, judged against what it should."""
