"""Settings of all tests."""

from hypothesis import settings

# A slow machine is no wrong result.
settings.register_profile("pegel", deadline=None)
settings.load_profile("pegel")
