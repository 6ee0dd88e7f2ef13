"""The classification data sets of the field by name: folders, readers, splits, templates, expected counts."""
