"""What session managers for Python do under attack and under concurrency: the same checks on all."""
