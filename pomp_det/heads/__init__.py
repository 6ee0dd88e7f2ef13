"""Second stage: cascade and C4 heads with the zero-shot classifier (Detic, arXiv 2201.02605)."""
