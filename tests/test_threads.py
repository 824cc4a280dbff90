"""The number of threads: measured, unless the user has said it."""

import subprocess
import sys

import pytest

CODE = """
import torch
from ming_omni.packed.threads import settle
before = torch.get_num_threads()
print(before, settle(), torch.get_num_threads())
"""


@pytest.mark.parametrize("said", ["1", "2", None])
def test_threads_are_all_or_one_and_a_number_that_was_set_is_kept(said, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    found = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout
    before, chosen, after = map(int, found.split())
    assert after == chosen
    assert chosen == int(said) if said else chosen in (1, before)
