"""The models that published files name in ``MODEL.META_ARCHITECTURE``."""
