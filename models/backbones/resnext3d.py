"""ResNeXt3D-101 (Hara et al., arXiv 1711.09577) and the 3D bottleneck that others reuse."""

from torch import Tensor, nn

from models.backbones.base import Backbone, FileKind, InputSpec, Pathway, droppable, numbered

_GROUPS = 32


def conv3d(
    in_channels: int, out_channels: int, kernel: int | tuple = 1, stride=1, **options
) -> nn.Conv3d:
    """A convolution without bias, padded by half its kernel."""
    padding = kernel // 2 if isinstance(kernel, int) else tuple(k // 2 for k in kernel)
    return nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=False, **options)


class Bottleneck3D(nn.Module):
    """1x1x1 -> 3x3x3 (grouped, strided) -> 1x1x1 with a shortcut, ReLU after the sum.

    Args:
        in_channels, planes, out_channels: channels in, inside and out.
        stride: stride of the 3x3x3 convolution in time, height and width.
        groups: groups of the 3x3x3 convolution.

    The shortcut is the identity, or where that does not fit a 1x1x1 convolution + batch norm.
    """

    def __init__(
        self, in_channels: int, planes: int, out_channels: int, stride: int = 1, groups: int = 1
    ):
        super().__init__()
        self.conv1 = conv3d(in_channels, planes)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = conv3d(planes, planes, 3, stride, groups=groups)
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3 = conv3d(planes, out_channels)
        self.bn3 = nn.BatchNorm3d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.drop = droppable()
        self.downsample = None
        if in_channels != out_channels or stride != 1:
            projection = conv3d(in_channels, out_channels, 1, stride)
            self.downsample = nn.Sequential(projection, nn.BatchNorm3d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, T, H, W) -> (N, out_channels, T/stride, H/stride, W/stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.drop(out) + shortcut)


def init_kaiming(module: nn.Module, mode: str = "fan_in") -> nn.Module:
    """Kaiming-normal convolutions (arXiv 1502.01852), in place; batch norms are already 1/0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
    return module


def _stage(in_channels: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    width = 2 * planes
    first = Bottleneck3D(in_channels, planes, width, stride, _GROUPS)
    rest = [Bottleneck3D(width, planes, width, groups=_GROUPS) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


def features(in_channels: int) -> nn.Sequential:
    """(N, in_channels, 64, 112, 112) -> (N, 2048, 4, 4, 4)."""
    return init_kaiming(
        nn.Sequential(
            conv3d(in_channels, 64, 7, stride=(1, 2, 2)),
            nn.BatchNorm3d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool3d(3, stride=2, padding=1),
            _stage(64, 128, blocks=3, stride=1),
            _stage(256, 256, blocks=4, stride=2),
            _stage(512, 512, blocks=23, stride=2),
            _stage(1024, 1024, blocks=3, stride=2),
        )
    )


def reduction_block(in_channels: int) -> Bottleneck3D:
    """in_channels -> 512 channels, the same bottleneck as the backbone's."""
    return init_kaiming(Bottleneck3D(in_channels, 256, 512, groups=_GROUPS))


# fmt: off
ROWS = (
    Backbone("resneXt3D", "resneXt3D{}f101", features,
             (Pathway(2048, 16, reduction_block, 512, last_block="7.2", last_block_in=2048),),
             {"rgb": InputSpec(112, (170, 128), 255, (114.7748, 107.7354, 99.4750), (1, 1, 1)),
              "flow": InputSpec(112, (170, 128), 255, (127.5, 127.5), (1, 1))},
             files=FileKind("ResNeXt3D-101", ("conv1.weight", "layer3.22.conv3.weight"),
                            numbered("conv1 bn1 - - layer1 layer2 layer3 layer4"), "fc"),
             stages={"layer4": 7}),
)
# fmt: on
