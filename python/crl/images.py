"""Images on their way into a network: random crops, and the convolutions that look at them.

Letters: B rows of a batch, H height, W width, C channels.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_IMAGE = 36
"""Pixels on a side that the published convolutions, which have no padding, leave something of."""
PUBLISHED = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""Filters, size and stride of the published convolutions."""
STEM, STAGES, BLOCKS = 16, (16, 32, 64), 2
"""Filters of the residual encoder's first convolution and of its stages, and the residual blocks of a stage."""
LEFT_ALONE = 0.5
"""Share of images that are not cropped: acting shows none that are (as Zheng et al. 2024 and Park et al. 2025)."""

Shape = tuple[int, int, int]


def random_crops(images: Tensor, shape: Shape, padding: int, random: Tensor) -> Tensor:
    """Images moved by up to `padding` pixels down or up and right or left; what comes in at an edge repeats it.

    That is to pad by the pixels at the edges and to crop at random. Half of them (`LEFT_ALONE`) stay as they are.

    Args:
        images: (B, H W C), row by row.
        shape: H, W, C.
        padding: pixels on every side.
        random: (B, 3), uniform on [0, 1): of each image whether it moves, how far down, and how far right.
    """
    height, width, channels = shape
    moved = random[:, :1] >= LEFT_ALONE
    offset = ((random[:, 1:] * (2 * padding + 1)).long() - padding) * moved
    # Of a pixel of the result, the row and the column where it was; those beyond an edge are the edge's.
    row, column = (
        (torch.arange(size, device=images.device) + offset[:, axis, None]).clamp(0, size - 1)
        for axis, size in ((0, height), (1, width))
    )
    image = torch.arange(len(images), device=images.device)[:, None, None]
    pixels = images.view(-1, height, width, channels)[image, row[:, :, None], column[:, None]]
    return pixels.flatten(1)


class Convolution(nn.Conv2d):
    """A convolution whose weights are drawn from `generator` by the same law as a `Dense`'s."""

    def __init__(
        self,
        channels: int,
        filters: int,
        size: int,
        stride: int = 1,
        padding: int = 0,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(channels, filters, size, stride, padding)
        bound = 1 / math.sqrt(channels * size * size)
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def reset_parameters(self) -> None:
        """Leave out PyTorch's own initialisation, which would draw from the global generator."""


def published(channels: int, generator: torch.Generator | None = None) -> nn.Sequential:
    """The convolutions of the image tasks of Eysenbach et al. (2022), those of DQN: 64 by 64 pixels become 1024."""
    layers: list[nn.Module] = []
    for filters, size, stride in PUBLISHED:
        layers += [Convolution(channels, filters, size, stride, generator=generator), nn.ReLU()]
        channels = filters
    return nn.Sequential(*layers)


class Block(nn.Module):
    """x + convolution(relu(convolution(relu(x)))), of the same shape."""

    def __init__(self, filters: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.first, self.second = (Convolution(filters, filters, 3, padding=1, generator=generator) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """A convolution, the largest of every 3 by 3 at every other place, and residual blocks: half the pixels a side."""

    def __init__(self, channels: int, filters: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.convolution = Convolution(channels, filters, 3, padding=1, generator=generator)
        self.blocks = nn.Sequential(*(Block(filters, generator) for _ in range(BLOCKS)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(F.max_pool2d(self.convolution(x), 3, 2, 1))  # type: ignore[no-any-return]


class ResidualConvolutions(nn.Module):
    """The residual encoder of IMPALA (Espeholt et al. 2018), made small: 64 by 64 pixels become 1024 numbers too.

    Before the first stage, whose convolutions of every pixel would take most of the time, there is one of every other.
    Images of any size.
    """

    def __init__(self, channels: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.stem = Convolution(channels, STEM, 3, 2, 1, generator=generator)
        sizes = zip((STEM, *STAGES), STAGES, strict=False)
        self.stages = nn.Sequential(*(Stage(*size, generator) for size in sizes))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.stages(F.relu(self.stem(x))))


ENCODERS: dict[str, Callable[[int, torch.Generator | None], nn.Module]] = {
    "published": published,
    "residual": ResidualConvolutions,
}


class Vision(nn.Module):
    """Any network behind convolutions.

    Its input begins with images, one or more, row by row, their values of 0 to 255 less those of the backdrop
    (`crl.inputs`); what follows are numbers. All images of an input pass the same
    convolutions, and get no gradient.

    Args:
        image: height, width, channels; at least 36 by 36 for the published convolutions.
        images: how many an input begins with.
        in_dim: entries of an input, images included.
        build: makes the network behind, given its input's entries.
        encoder: one of `ENCODERS`.
        generator: source of the initial weights of the convolutions.
    """

    def __init__(
        self,
        image: Shape,
        images: int,
        in_dim: int,
        build: Callable[[int], nn.Module],
        encoder: str = "published",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        height, width, channels = image
        if encoder == "published" and min(height, width) < SMALLEST_IMAGE:
            raise ValueError(
                f"image: expected at least {SMALLEST_IMAGE} by {SMALLEST_IMAGE}, got {height} by {width}; "
                "image_encoder residual takes any size"
            )
        self._image, self._images = image, images
        self.convolutions = ENCODERS[encoder](channels, generator)
        with torch.no_grad():
            seen = self.convolutions(torch.zeros(1, channels, height, width)).numel()
        self.network = build(images * seen + in_dim - images * math.prod(image))

    def forward(self, x: Tensor) -> Tensor:
        height, width, channels = self._image
        pixels = self._images * height * width * channels
        # Actions beside an image may want a gradient; those of pixels would be thrown away.
        images = x[:, :pixels].detach().view(-1, height, width, channels).permute(0, 3, 1, 2)
        seen = self.convolutions(images / 255).flatten(1).view(len(x), -1)
        return self.network(torch.cat((seen, x[:, pixels:]), -1))  # type: ignore[no-any-return]
