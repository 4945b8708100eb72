"""Frames of a split in three dimensions, interactively (viser, optional extra ``view``)."""
