"""Pictures of views and of their predictions."""
