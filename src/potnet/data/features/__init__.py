"""Features: computing them, the cache on disk, and batches of them."""
