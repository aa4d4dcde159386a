"""Shape checks by jaxtyping in every test, one torch thread, no global randomness."""

import torch
from jaxtyping import install_import_hook

install_import_hook(["steersman"], "beartype.beartype")
torch.set_num_threads(1)
