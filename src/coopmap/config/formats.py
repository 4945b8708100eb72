"""Formats that predictions are written in for other tools."""

EXPORTS = ("tum", "kitti", "colmap", "heal")
