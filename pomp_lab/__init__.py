"""Experiments: tables of the paper, comparisons, reports, benchmarks, demo, generated shapes, builders of ``mini``."""
