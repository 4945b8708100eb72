"""Runs at a glance: a static page from their logs, and the same panels as a W&B workspace."""
