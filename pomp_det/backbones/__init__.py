"""Backbones with a feature pyramid, under the registry names of the published YAML files."""
