"""Files that other people's tools read: trajectories, COLMAP models, pose caches of cooperative perception.

Poses are ``T_world_x`` as everywhere, OpenCV axes, meters; each module converts to what its format asks for.
"""
