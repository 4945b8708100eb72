"""A sample as a model sees it: page, pictures, point clouds, numbers."""
