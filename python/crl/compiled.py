"""`torch.compile` for a small function that is called often: compiled once, and again only for other shapes."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from crl.errors import ConfigError


@functools.cache
def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function`, compiled at its first call with arguments of some shape, grad mode and number of threads.

    Raises:
        ConfigError: from such a call, where PyTorch cannot compile: a CPU takes a C++ compiler, CUDA takes Triton.
    """
    # One thread compiles: a pool of processes would import PyTorch for longer than there is something to compile.
    fast: Callable[..., Tensor] = torch.compile(function, dynamic=False, options={"compile_threads": 1})

    @functools.wraps(function)
    def call(*arguments: Any) -> Tensor:
        try:
            return fast(*arguments)
        except RuntimeError as error:
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                raise ConfigError(f"compile: PyTorch cannot compile here ({reason}): leave it out.") from None
            raise

    return call
