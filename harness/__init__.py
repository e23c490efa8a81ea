"""backproof: is this gradient right? Hand-derived backpropagation as ground truth for PyTorch, JAX and custom layers."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Public names and where they live. They are imported on first use, so that `import backproof` costs nothing.
_HOMES = {
    "verify": ".run",
    "check": ".checker",
    "assert_gradients": ".checker",
    "GradientMismatch": ".checker",
    "check_gradients": ".handwritten",
    "prove": ".proof",
    "Proof": ".proof",
    "Report": ".report",
    "Finding": ".finding",
    "Certificate": ".certify",
    "Case": ".reference.case",
    "Network": ".reference.network",
    "Trace": ".reference.trace",
    "LayerTrace": ".reference.trace",
    "Layer": ".reference.layer",
    "Constant": ".reference.layer",
    "Adapter": ".adapters",
    **{
        name: f".reference.{module}"
        for module, names in {
            "linear": "Linear",
            "activations": (
                "Identity ReLU LeakyReLU PReLU ReLU6 ELU SELU CELU GELU SiLU Mish Sigmoid LogSigmoid Tanh Softplus Softsign Hardtanh "
                "Hardsigmoid Hardswish Softmax LogSoftmax GLU SwiGLU"
            ),
            "convolution": "Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d",
            "pooling": "MaxPool1d MaxPool2d AvgPool1d AvgPool2d AdaptiveAvgPool2d GlobalAvgPool GlobalMaxPool Sum Mean",
            "normalization": "BatchNorm LayerNorm RMSNorm GroupNorm InstanceNorm",
            "attention": "ScaledDotProductAttention MultiheadAttention RotaryEmbedding",
            "recurrent": "RNN GRU LSTM",
            "indexing": "Embedding Dropout Gather ScatterAdd IndexSelect",
            "reductions": "CumSum CumProd Prod LogSumExp Normalize",
            "wiring": "Flatten Reshape Transpose Concatenate Add Multiply Fork",
            "containers": "Sequential Residual Parallel Shared",
            "head": "Head",
            "heads": (
                "MSELoss L1Loss HuberLoss SmoothL1Loss HingeLoss SoftMarginLoss BCEWithLogitsLoss KLDivLoss NLLLoss CrossEntropyLoss "
                "CosineEmbeddingLoss"
            ),
            "ctc": "CTCLoss",
        }.items()
        for name in names.split()
    },
}
_MODULES = ("adapters", "strategies", "reference")

__all__ = [*_HOMES, *_MODULES]  # noqa: PLE0604  (the names stand in the table above)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module 'backproof' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
