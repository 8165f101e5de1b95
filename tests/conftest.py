"""What holds for all tests."""

from hypothesis import settings

# an example that takes long on a busy machine shows nothing wrong
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
