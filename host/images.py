"""Where images come from: scikit-learn's digits.

Enters: the name of a split. Leaves: uint8 pixels [N, S, S, C] and int64 labels [N].
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray


def digits(split: Literal["train", "test"]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """scikit-learn's 1,797 handwritten digits, a stratified quarter of them for testing.

    Returns pixels uint8 [N, 8, 8, 1], the data set's 0..16 stretched to 0..255, and labels int64 [N], in the data
    set's order. The split is always the same one.
    """
    from sklearn.datasets import load_digits  # not on the board
    from sklearn.model_selection import train_test_split

    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', not {split!r}")
    values, labels = load_digits(return_X_y=True)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.25, stratify=labels, random_state=0)
    chosen = np.sort(train if split == "train" else test)
    pixels = np.rint(values[chosen] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return pixels, labels[chosen].astype(np.int64)
