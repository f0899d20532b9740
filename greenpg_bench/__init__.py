"""Benchmarks: a child process for each contender, rounds interleaved, ratios within a round."""
