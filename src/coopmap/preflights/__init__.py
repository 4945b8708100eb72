"""What is tried out before a run begins: devices, data, weights, the largest batch."""
