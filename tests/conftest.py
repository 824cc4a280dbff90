"""One thread a test process, and property tests that draw the same examples in every run, without a clock."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: more threads only fight over the cores

from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")
