"""Views ready to train on, kept on disk: an LMDB file per shard, see docs/cache.md."""
