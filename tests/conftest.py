"""Property tests draw the same examples in every run, and none fails because a machine is slow."""

from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")
