#!/usr/bin/env bash
# torch 2.13.0: pixel_unshuffle of a batch without images returns the shape it was given, and so the gradient of pixel_shuffle is refused.
# Guess before the run: (0, 2, 4, 6) with factor 2 becomes (0, 8, 2, 3), as a batch of one image becomes (1, 8, 2, 3).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

one, none = (tuple(pixel_unshuffle(torch.zeros(batch, 2, 4, 6), 2).shape) for batch in (1, 0))
images = torch.zeros(0, 4, 3, 8, requires_grad=True)
try:
    pixel_shuffle(images, 2).sum().backward()
    raised = "nothing"
except RuntimeError as error:
    raised = str(error)
print(f"torch {torch.__version__}: one image {one}, no image {none}; the gradient of pixel_shuffle raises: {raised}")
assert torch.__version__.startswith("2.13.0")
assert one == (1, 8, 2, 3)
assert none == (0, 2, 4, 6)
assert "PixelShuffleBackward0 returned an invalid gradient" in raised
PYTHON
