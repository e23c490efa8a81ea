"""Arrays that become tensors, and back, bit by bit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

__all__ = ["to_numpy", "to_torch"]


def to_torch(array: np.ndarray) -> Tensor:
    """Return a tensor holding the array's numbers; bfloat16 travels by its bits."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def to_numpy(tensor: Tensor | None) -> np.ndarray:
    """Return the tensor's numbers as an array of its own precision."""
    if tensor is None:
        raise RuntimeError("torch returned no gradient for a tensor that takes part in the loss")
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy(force=True)  # forward mode has zeros that are stored nowhere
