"""One process, few threads, no deadlines: tests run on machines that are busy elsewhere."""

import torch
from hypothesis import settings

settings.register_profile("swabench", deadline=None, max_examples=40)
settings.load_profile("swabench")
torch.set_num_threads(2)
