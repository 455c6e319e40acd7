"""Everything random, by key: what is drawn in a step does not depend on how training got there."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

# The first number of a key says what is drawn.
SPLIT, ORDER, STEP, STATISTICS = range(4)
# cuBLAS repeats its results only with a workspace of fixed size.
CUBLAS_VARIABLE, CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


def generator(seed: int, *key: int) -> np.random.Generator:
    """The numbers of this key, the same on every machine (Philox)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *key])))


def seed_torch(seed: int, *key: int) -> None:
    """Let torch draw the numbers of this key: Dropout is all that does."""
    (drawn,) = np.random.SeedSequence([seed, *key]).generate_state(1, np.uint64)
    # `torch.manual_seed` writes down the stack in every call until there is a GPU: 3 ms, more than many a step takes.
    torch.default_generator.manual_seed(int(drawn) >> 1)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(int(drawn) >> 1)


@contextmanager
def repeatable(threads: int) -> Iterator[None]:
    """Within, torch computes on `threads` threads and the same every time; afterwards it is as it was before.

    On a GPU a few gradients (of resizing, of scattered sums) have no deterministic kernel, and run all the same.
    """
    before_threads, uninitialized = torch.get_num_threads(), torch.utils.deterministic.fill_uninitialized_memory
    deterministic, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    workspace = os.environ.get(CUBLAS_VARIABLE)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    os.environ[CUBLAS_VARIABLE] = CUBLAS_WORKSPACE
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*deterministic", category=UserWarning)
            yield
    finally:
        torch.set_num_threads(before_threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = uninitialized
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn
        if workspace is None:
            del os.environ[CUBLAS_VARIABLE]
        else:
            os.environ[CUBLAS_VARIABLE] = workspace
