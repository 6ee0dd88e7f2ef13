"""Prompts learned on embeddings of image regions: DetPro's, with a background and grades of IoU, and PromptDet's."""
