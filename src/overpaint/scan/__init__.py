"""Many photos into one table: engines that examine them, shards, and what is read from these."""
