"""The layers of every network, counted from its settings: weights, matrix products, what a backward pass keeps.

`tests/test_plan.py` holds the counts to real networks.
"""

import dataclasses
import math
from dataclasses import dataclass

from crl.config import LAYERS_PER_BLOCK
from crl.images import BLOCKS, PUBLISHED, STAGES, STEM


@dataclass(frozen=True)
class Layer:
    """One layer of weights, with the normalisation and activation behind it. Numbers are of one row of a batch."""

    parameters: int
    products: int
    """Multiplications of its matrix product, forward."""
    kept: int
    """Numbers kept for the backward pass where its weights learn."""
    kept_frozen: int
    """Numbers kept where gradients only pass through to its input: the input itself is then not needed."""
    of_images: bool = False
    """A convolution. What it sees gets no gradient, so where its weights are fixed it has no backward pass."""


def network_layers(
    network: str,
    in_dim: int,
    out_dim: int,
    width: int,
    depth: int,
    *,
    image: tuple[int, int, int] | None = None,
    images: int = 1,
    encoder: str = "published",
    fourier: int = 0,
    recompute: bool = False,
) -> list[Layer]:
    """The layers of `networks.build_network` with the same arguments.

    Dense(I -> W) has I W weights and W biases, LayerNorm 2 W more. A backward pass keeps of Dense and swish the output
    (W each; the last is the next layer's input), of LayerNorm mean and deviation, and with it the sigmoid (behind GELU,
    its output) and between blocks the sum, whether weights learn or not.
    A residual network has room for three gradients on the way back.
    Where blocks `recompute` their insides, one has all of this and the others the sum; all but the last are then made
    twice.
    """
    entries, layers = in_dim, list[Layer]()
    if image is not None:
        made, seen = (_published if encoder == "published" else _residual)(image)
        layers = [
            Layer(layer.parameters, images * layer.products, images * layer.kept, 0, of_images=True) for layer in made
        ]
        entries += images * (seen - math.prod(image))
    if fourier and image is None:
        layers.append(Layer(0, entries * fourier, 2 * fourier, 2 * fourier))
        entries += 2 * fourier
    if network == "hyperspherical":
        return layers + _spherical_layers(entries, out_dim, width, depth)
    normalised = network == "residual"
    scales, moments = (2 * width, width + 2) if normalised or network == "mlp_gelu_norm" else (0, 0)
    for number in range(depth + 1 if normalised else depth):
        size, given = (width, 0) if number else (entries, entries)
        sums = width if normalised and number and number % LAYERS_PER_BLOCK == 0 else 0
        kept = width + moments + sums
        frozen = kept + normalised * width
        if recompute and number > LAYERS_PER_BLOCK:
            kept, frozen = sums - width, sums
        layers.append(Layer((size + 1) * width + scales, size * width, given + width + kept, frozen))
    gradients = 3 * width if normalised else 0
    layers.append(Layer((width + 1) * out_dim, width * out_dim, out_dim + gradients, out_dim + gradients))
    return layers


def _published(image: tuple[int, int, int]) -> tuple[list[Layer], int]:
    """The convolutions of `images.published` for one image, and the numbers that they make of it.

    The first keeps its image, all keep their output behind the ReLU, which is what the next one sees.
    """
    (rows, columns, channels), seen, layers = image, math.prod(image), list[Layer]()
    for filters, size, stride in PUBLISHED:
        rows, columns = (rows - size) // stride + 1, (columns - size) // stride + 1
        outputs = rows * columns * filters
        weights = channels * size * size
        layers.append(Layer((weights + 1) * filters, weights * outputs, seen + outputs, 0))
        channels, seen = filters, 0
    return layers, outputs


def _residual(image: tuple[int, int, int]) -> tuple[list[Layer], int]:
    """Those of `images.ResidualConvolutions`.

    Kept are, beside the image: of every ReLU its output; of a stage's first convolution, from the second stage on, what
    it sees; and of its largest values all that they were taken from, and where they were, an integer of 8 bytes each.
    """
    rows, columns, channels = image

    def layer(filters: int, seen: int, kept: int) -> Layer:
        weights = 9 * seen
        return Layer((weights + 1) * filters, weights * rows * columns * filters, kept, 0)

    rows, columns = (rows + 1) // 2, (columns + 1) // 2
    layers = [layer(STEM, channels, math.prod(image) + rows * columns * STEM)]
    seen, sums = STEM, 0
    for filters in STAGES:
        before = layer(filters, seen, 0)
        kept = sums + rows * columns * filters
        rows, columns, seen = (rows + 1) // 2, (columns + 1) // 2, filters
        sums = rows * columns * filters
        layers.append(dataclasses.replace(before, kept=kept + 2 * sums))
        layers += 2 * BLOCKS * [layer(filters, filters, sums)]
    layers[-1] = dataclasses.replace(layers[-1], kept=2 * sums)
    return layers, sums


def _spherical_layers(in_dim: int, out_dim: int, width: int, depth: int) -> list[Layer]:
    """Those of `hyperspherical.HypersphericalMLP`.

    Autograd keeps what Dense gives, what its scale makes of it, and what is put on the sphere before and after, with
    lengths; where weights are fixed, what goes through ReLU and what is put on the sphere.
    """
    given, lengths = in_dim + 1, 6
    first = Layer((given + 1) * width, given * width, 2 * given + 3 * width, given + width)
    dense = (width + 1) * width, width * width
    step = [Layer(*dense, 2 * width, width), Layer(*dense, 4 * width + lengths, 2 * width + lengths)]
    last = Layer((width + 1) * out_dim, width * out_dim, width + out_dim, out_dim)
    return [first, *step * (depth // len(step)), last]


def parameters(layers: list[Layer]) -> int:
    """Weights, biases and the scales of normalisations."""
    return sum(layer.parameters for layer in layers)


def flop(layers: list[Layer], rows: int, *, weights: bool, inputs: bool) -> int:
    """Floating-point operations of the matrix products of one pass, forward and backward, over `rows` rows.

    A product of M multiplications is 2 M operations forward, as many for the gradient of its weights, and as many for
    that of its input, which the first layer only needs where `inputs` is true. Fourier features have no weights.
    """
    forward = sum(layer.products for layer in layers)
    through = sum(layer.products for layer in layers if weights or not layer.of_images)
    learnt = sum(layer.products for layer in layers if layer.parameters)
    first = layers[: 1 if layers[0].parameters else 2]
    backward = weights * learnt + through - (0 if inputs else sum(layer.products for layer in first))
    return 2 * rows * (forward + backward)
