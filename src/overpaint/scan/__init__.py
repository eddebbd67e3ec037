"""Detection in many photos: engines that examine them, result files, queries and a gallery."""
