"""First stage: class-agnostic CenterNet proposals (CenterNet2, arXiv 2103.07461)."""
