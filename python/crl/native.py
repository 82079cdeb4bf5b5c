"""Where the native loops of `rust/kernels` serve: for float32 on a CPU."""

from typing import Any

import torch
from torch import Tensor


def serves(tensor: Tensor) -> bool:
    """Whether they take this tensor. Autograd, dispatch modes and graphs see nothing of what they do."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def view(tensor: Tensor) -> Any:
    """A NumPy array over the memory of a tensor that they take, or else the tensor itself."""
    return tensor.detach().numpy() if serves(tensor) else tensor
