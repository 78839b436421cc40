"""One process, few threads, no deadlines: tests run on machines that are busy elsewhere."""

import gc
import os
import signal

import pytest
import torch
from hypothesis import settings

settings.register_profile("swabench", deadline=None, max_examples=40)
settings.load_profile("swabench")
torch.set_num_threads(1)
# A shell's `&` and `nohup` ignore these on purpose, and what is tested is what hears them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# Tests lose no power, and write thousands of records. Commands in processes of their own do sync.
os.fsync = lambda fd: None


@pytest.fixture(autouse=True, scope="module")
def _what_was_imported_is_no_garbage() -> None:
    """Holm's correction by statsmodels collects garbage, a tenth of a second a time.

    What lives on anyhow, torch and a few more, need not be looked through at every call.
    """
    gc.collect()
    gc.freeze()
