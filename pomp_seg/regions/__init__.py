"""Classification of masked image regions by CLIP's image tower."""
