"""SlowFast 8x8 R50 (Feichtenhofer et al., arXiv 1812.03982), under PySlowFast's names."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from models.backbones.base import Backbone, FileKind, InputSpec, Pathway, droppable, inside
from models.backbones.resnext3d import Bottleneck3D, conv3d, init_kaiming

_SLOW_WIDTH, _FAST_WIDTH = 2048, 256
_ALPHA = 4  # frames of the fast path for one of the slow path
_FAST_STEP = 2  # clip frames for one of the fast path: 64 -> 32 fast, 8 slow

Pathways = tuple[Tensor, Tensor]  # (slow, fast)
PathwayPair = tuple[int, int]  # (slow, fast)


def _stem(in_channels: int, out_channels: int, time: int) -> nn.Sequential:
    layers = OrderedDict(
        conv=conv3d(in_channels, out_channels, (time, 7, 7), stride=(1, 2, 2)),
        bn=nn.BatchNorm3d(out_channels),
        relu=nn.ReLU(inplace=True),
        pool=nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
    )
    return nn.Sequential(layers)


class _Stems(nn.Module):
    def __init__(self, in_channels: int):
        super().__init__()
        self.pathway0_stem = _stem(in_channels, 64, time=1)
        self.pathway1_stem = _stem(in_channels, 8, time=5)

    def forward(self, x: Pathways) -> Pathways:
        return self.pathway0_stem(x[0]), self.pathway1_stem(x[1])


class _Fuse(nn.Module):
    """Lateral connection: the fast path, strided in time, is concatenated to the slow one."""

    def __init__(self, fast_channels: int):
        super().__init__()
        self.conv_f2s = conv3d(fast_channels, 2 * fast_channels, (7, 1, 1), (_ALPHA, 1, 1))
        self.bn = nn.BatchNorm3d(2 * fast_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Pathways) -> Pathways:
        slow, fast = x
        return torch.cat([slow, self.relu(self.bn(self.conv_f2s(fast)))], dim=1), fast


class _Block(nn.Module):
    def __init__(
        self, in_channels: int, planes: int, time: int, stride: int, drop: StochasticDepth
    ):
        super().__init__()
        out_channels = 4 * planes
        if in_channels != out_channels or stride != 1:
            self.branch1 = conv3d(in_channels, out_channels, 1, (1, stride, stride))
            self.branch1_bn = nn.BatchNorm3d(out_channels)
        layers = OrderedDict(
            a=conv3d(in_channels, planes, (time, 1, 1)),
            a_bn=nn.BatchNorm3d(planes),
            a_relu=nn.ReLU(inplace=True),
            b=conv3d(planes, planes, (1, 3, 3), (1, stride, stride)),
            b_bn=nn.BatchNorm3d(planes),
            b_relu=nn.ReLU(inplace=True),
            c=conv3d(planes, out_channels),
            c_bn=nn.BatchNorm3d(out_channels),
            drop=drop,
        )
        nn.init.zeros_(layers["c_bn"].weight)
        self.branch2 = nn.Sequential(layers)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.branch1_bn(self.branch1(x)) if hasattr(self, "branch1") else x
        return self.relu(shortcut + self.branch2(x))


class _Stage(nn.Module):
    """One stage of both paths; blocks are `pathway<p>_res<i>`, the slow path first."""

    def __init__(
        self,
        in_channels: PathwayPair,
        planes: PathwayPair,
        blocks: int,
        time: PathwayPair,
        stride: int,
    ):
        super().__init__()
        self.blocks = blocks
        drops = [droppable() for _ in range(blocks)]  # blocks of the same depth share one
        for path in (0, 1):
            channels = in_channels[path]
            for i in range(blocks):
                own_stride = stride if i == 0 else 1
                block = _Block(channels, planes[path], time[path], own_stride, drops[i])
                self.add_module(f"pathway{path}_res{i}", block)
                channels = 4 * planes[path]

    def forward(self, x: Pathways) -> Pathways:
        slow, fast = x
        for i in range(self.blocks):
            slow = self.get_submodule(f"pathway0_res{i}")(slow)
            fast = self.get_submodule(f"pathway1_res{i}")(fast)
        return slow, fast


class SlowFast(nn.Module):
    """Both pathways up to s5: a clip -> slow and fast features."""

    def __init__(self, in_channels: int, num_classes: int = 400):
        super().__init__()
        self.s1 = _Stems(in_channels)
        self.s1_fuse = _Fuse(8)
        self.s2 = _Stage((64 + 16, 8), (64, 8), blocks=3, time=(1, 3), stride=1)
        self.s2_fuse = _Fuse(32)
        self.s3 = _Stage((256 + 64, 32), (128, 16), blocks=4, time=(1, 3), stride=2)
        self.s3_fuse = _Fuse(64)
        self.s4 = _Stage((512 + 128, 64), (256, 32), blocks=6, time=(3, 3), stride=2)
        self.s4_fuse = _Fuse(128)
        self.s5 = _Stage((1024 + 256, 128), (512, 64), blocks=3, time=(3, 3), stride=2)
        # PySlowFast's key for the projection, `head.projection`
        self.head = nn.ModuleDict({"projection": nn.Linear(_SLOW_WIDTH + _FAST_WIDTH, num_classes)})
        init_kaiming(self, mode="fan_out")
        nn.init.normal_(self.head["projection"].weight, std=0.01)
        nn.init.zeros_(self.head["projection"].bias)

    def forward(self, clips: Tensor) -> Pathways:
        """(N, C, 64, 224, 224) -> slow (N, 2048, 8, 7, 7), fast (N, 256, 32, 7, 7)."""
        return self.s5(self.below_s5(clips))

    def below_s5(self, clips: Tensor) -> Pathways:
        """(N, C, 64, 224, 224) -> slow (N, 1280, 8, 14, 14), fast (N, 128, 32, 14, 14)."""
        fast = clips[:, :, ::_FAST_STEP]
        x = self.s1_fuse(self.s1((fast[:, :, ::_ALPHA], fast)))
        x = self.s2_fuse(self.s2(x))
        x = self.s3_fuse(self.s3(x))
        return self.s4_fuse(self.s4(x))


def _pathway(width: int, stride: int, reduced: int, last_block: str) -> Pathway:
    """A pathway that a plain bottleneck reduces, without groups."""

    def reduction_block(in_channels: int) -> Bottleneck3D:
        return init_kaiming(Bottleneck3D(in_channels, reduced // 2, reduced), mode="fan_out")

    return Pathway(width, stride, reduction_block, reduced, last_block, last_block_in=width)


# fmt: off
ROWS = (
    Backbone("slowfast", "slowfast{}f_50", SlowFast,
             (_pathway(_SLOW_WIDTH, 8, 512, "s5.pathway0_res2"),
              _pathway(_FAST_WIDTH, 2, 128, "s5.pathway1_res2")),
             {"rgb": InputSpec(224, (340, 256), 1, (0.45, 0.45, 0.45), (0.225, 0.225, 0.225))},
             only_frames=64,
             files=FileKind("SlowFast", ("s1.pathway0_stem.conv.weight",),
                            inside("s1 s2 s3 s4 s5 s1_fuse s2_fuse s3_fuse s4_fuse", "model"),
                            "head.projection"),
             stages={"s5": 8}),
)
# fmt: on
