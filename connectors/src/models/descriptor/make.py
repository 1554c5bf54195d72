#!/usr/bin/env python3
"""Generates `descriptor.onnx`, the built-in image model: no trained weights, standard library only.

    python3 make.py [OUTPUT]        (default: descriptor.onnx beside this file)

`pixel_values` [N, 3, 112, 112] f32 RGB in [0, 1]  ->  `image_embeds` [N, 397] f32, not yet of unit length.

Two blocks and a constant:

* colour layout (after the MPEG-7 descriptor of that name, ISO/IEC 15938-3): luma and two opponent colours averaged over
  6 x 6 overlapping windows. Luma loses its mean, so that exposure does not count; colours keep theirs, grey is zero.
* oriented-gradient energies (after Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR
  2005): luma convolved with eight directed derivatives of a Gaussian, rectified, averaged over 6 x 6 overlapping windows,
  square root taken (Hellinger), and the mean over everything removed, so that the cosine distinguishes images.

Each block is divided by its length, softened so that the noise of a flat image is not amplified. The constant keeps the
vector of an image without any structure away from zero.
"""

import math
import sys
from pathlib import Path

from onnx_writer import model, node, tensor, value

SIDE = 112
CELLS = 6
LUMA = (0.299, 0.587, 0.114)
OPPONENTS = (LUMA, (0.5, -0.5, 0.0), (0.25, 0.25, -0.5))
# Colours vary less than luma and say more about the subject of an image.
COLOUR_WEIGHTS = (1.0, 2.0, 2.0)
DIRECTIONS = 8
SIGMA = 1.2
RADIUS = 2
# Windows overlap by a half, so that content that moves by a few pixels stays partly in its window.
COLOUR_WINDOW, GRADIENT_WINDOW, STRIDE = 32, 28, 16
SOFTENING = 0.05
COLOUR_SHARE, GRADIENT_SHARE, CONSTANT = 0.7, 1.0, 0.05
DIM = (3 + DIRECTIONS) * CELLS * CELLS + 1


def derivative(direction):
    """A Gaussian's derivative along `direction`, absolute values summing to one."""
    angle = 2 * math.pi * direction / DIRECTIONS
    span = range(-RADIUS, RADIUS + 1)
    taps = [
        (x * math.cos(angle) + y * math.sin(angle)) * math.exp(-(x * x + y * y) / (2 * SIGMA * SIGMA))
        for y in span
        for x in span
    ]
    total = sum(abs(tap) for tap in taps)
    # Rounded, so that the file's bytes do not depend on the last bit of a platform's libm.
    return [round(tap / total, 6) for tap in taps]


def soft_unit(name, source, target):
    """Nodes dividing each row of `source` by its softened length."""
    return [
        node("ReduceSumSquare", [source], [f"{name}_energy"], axes=[1], keepdims=1),
        node("Add", [f"{name}_energy", "softening"], [f"{name}_softened"]),
        node("Sqrt", [f"{name}_softened"], [f"{name}_length"]),
        node("Div", [source, f"{name}_length"], [f"{name}_unit"]),
        node("Mul", [f"{name}_unit", f"{name}_share"], [target]),
    ]


def build():
    size = 2 * RADIUS + 1
    kernels = [weight * tap for d in range(DIRECTIONS) for weight in LUMA for tap in derivative(d)]
    initializers = [
        tensor("opponents", [3, 3, 1, 1], [weight for row in OPPONENTS for weight in row]),
        tensor("centred", [1, 3, 1, 1], [1.0, 0.0, 0.0]),
        tensor("colour_weights", [1, 3, 1, 1], COLOUR_WEIGHTS),
        tensor("derivatives", [DIRECTIONS, 3, size, size], kernels),
        tensor("softening", [1], [SOFTENING * SOFTENING]),
        tensor("colour_share", [1], [COLOUR_SHARE]),
        tensor("gradient_share", [1], [GRADIENT_SHARE]),
        tensor("zero", [1], [0.0]),
        tensor("constant", [1], [CONSTANT]),
    ]
    nodes = [
        node("Conv", ["pixel_values", "opponents"], ["colours"], kernel_shape=[1, 1]),
        node("AveragePool", ["colours"], ["layout"], kernel_shape=[COLOUR_WINDOW] * 2, strides=[STRIDE] * 2),
        node("ReduceMean", ["layout"], ["layout_mean"], axes=[2, 3], keepdims=1),
        node("Mul", ["layout_mean", "centred"], ["luma_mean"]),
        node("Sub", ["layout", "luma_mean"], ["layout_centred"]),
        node("Mul", ["layout_centred", "colour_weights"], ["layout_weighted"]),
        node("Flatten", ["layout_weighted"], ["colour"], axis=1),
        node("Conv", ["pixel_values", "derivatives"], ["slopes"], kernel_shape=[size, size]),
        node("Relu", ["slopes"], ["rises"]),
        node("AveragePool", ["rises"], ["energies"], kernel_shape=[GRADIENT_WINDOW] * 2, strides=[STRIDE] * 2),
        node("Sqrt", ["energies"], ["roots"]),
        node("ReduceMean", ["roots"], ["root_mean"], axes=[1, 2, 3], keepdims=1),
        node("Sub", ["roots", "root_mean"], ["roots_centred"]),
        node("Flatten", ["roots_centred"], ["gradient"], axis=1),
        *soft_unit("colour", "colour", "colour_block"),
        *soft_unit("gradient", "gradient", "gradient_block"),
        node("Mul", ["colour_energy", "zero"], ["nothing"]),
        node("Add", ["nothing", "constant"], ["rest"]),
        node("Concat", ["colour_block", "gradient_block", "rest"], ["image_embeds"], axis=1),
    ]
    inputs = [value("pixel_values", ["N", 3, SIDE, SIDE])]
    outputs = [value("image_embeds", ["N", DIM])]
    return model("descriptor", nodes, initializers, inputs, outputs)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("descriptor.onnx")
    target.write_bytes(build())
