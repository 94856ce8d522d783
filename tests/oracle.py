"""BiT in NumPy and float64, written from the paper and the authors' description.

It shares no code with the package: padding, pooling, moments and convolutions are spelled out.
"""

import numpy as np


def pad(x, size, value=0.0):
    spatial = ((0, 0), (size, size), (size, size), (0, 0))
    return np.pad(x, spatial, constant_values=value)


def patches(x, size, stride):
    """(batch, rows, columns, channels, size, size)"""
    view = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return view[:, ::stride, ::stride]


def convolve(x, kernel, stride):
    size = kernel.shape[0]
    return np.einsum("bhwcij,ijco->bhwo", patches(x, size, stride), kernel, optimize=True)


def standardize(kernel, epsilon=1e-10):
    kernel = kernel.astype(np.float64)
    mean = kernel.mean(axis=(0, 1, 2))
    variance = ((kernel - mean) ** 2).mean(axis=(0, 1, 2))
    return (kernel - mean) / np.sqrt(variance + epsilon)


def group_norm(x, gamma, beta, groups=32, epsilon=1e-5):
    batch, height, width, channels = x.shape
    grouped = x.reshape(batch, height, width, groups, channels // groups)
    mean = grouped.mean(axis=(1, 2, 4), keepdims=True)
    variance = ((grouped - mean) ** 2).mean(axis=(1, 2, 4), keepdims=True)
    normalized = ((grouped - mean) / np.sqrt(variance + epsilon)).reshape(x.shape)
    return normalized * gamma + beta


def backbone(images, weights, units, groups=lambda channels: 32):
    """The last feature map, after group norm and ReLU.

    Args:
        images: (batch, height, width, 3) in [-1, 1].
        weights: Dict with the authors' names, without `resnet/`.
        units: Units of each block.
        groups: The number of groups for a number of channels.
    """

    def conv(x, name, stride=1):
        kernel = standardize(weights[f"{name}standardized_conv2d/kernel"])
        return convolve(pad(x, (kernel.shape[0] - 1) // 2), kernel, stride)

    def norm_relu(x, name):
        gamma, beta = (weights[f"{name}group_norm/{which}"] for which in ("gamma", "beta"))
        return np.maximum(group_norm(x, gamma, beta, groups(x.shape[-1])), 0)

    x = conv(images.astype(np.float64), "root_block/", stride=2)
    x = patches(pad(x, 1), 3, 2).max(axis=(-1, -2))
    for block, count in enumerate(units, 1):
        for unit in range(1, count + 1):
            name = f"block{block}/unit{unit:02d}/"
            stride = 2 if block > 1 and unit == 1 else 1
            shortcut, y = x, norm_relu(x, f"{name}a/")
            if f"{name}a/proj/standardized_conv2d/kernel" in weights:
                shortcut = conv(y, f"{name}a/proj/", stride)
            y = conv(y, f"{name}a/")
            y = conv(norm_relu(y, f"{name}b/"), f"{name}b/", stride)
            x = shortcut + conv(norm_relu(y, f"{name}c/"), f"{name}c/")
    return norm_relu(x, "")
