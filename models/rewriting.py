"""A trained network's convolutions in other shapes with the same sums, for speed.

Pure functions of a network in evaluation mode; they change it in place and return how many layers
they changed. Its entries have other names and shapes then: it is never saved.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.backbones.i3d import SameConv3d, same_pads
from models.late_temporal import VideoNet

STEM_CHANNELS = 4  # a convolution of so many channels, or fewer, is a stem


def fold_batch_norms(model: VideoNet, inputs: Tensor) -> int:
    """Each batch norm that follows a convolution becomes part of its weights.

    `inputs` are clips (N, C, T, H, W), of which the shape alone counts.
    """
    # which follows which: a pass on the meta device, where nothing is computed
    shadow = copy.deepcopy(model).to("meta")
    names = {module: name for name, module in shadow.named_modules()}
    outputs: dict[int, tuple[Tensor, str]] = {}  # keeps the tensors, so that ids stay theirs
    pairs: dict[str, str] = {}

    def follow(module: nn.Module, arguments: tuple, output: Tensor) -> None:
        if isinstance(module, nn.Conv3d):
            outputs[id(output)] = output, names[module]
        elif id(arguments[0]) in outputs:
            pairs[outputs[id(arguments[0])][1]] = names[module]

    for module in names:
        if isinstance(module, nn.Conv3d | nn.BatchNorm3d):
            module.register_forward_hook(follow)
    shadow.encode(torch.empty(inputs.shape, device="meta"))
    # fold
    for conv, norm in pairs.items():
        fused = fuse_conv_bn_eval(model.get_submodule(conv), model.get_submodule(norm))
        model.set_submodule(conv, fused)
        model.set_submodule(norm, nn.Identity())
    return len(pairs)


def stems_to_depth(model: VideoNet, size: Sequence[int]) -> int:
    """Stems with stride 2 read 2x2 (or 2x2x2) pixels as channels; `size` is a clip's T, H, W."""
    stems = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv3d)
        and module.in_channels <= STEM_CHANNELS
        and module.padding_mode == "zeros"
        and 2 in module.stride
        and all(s == 1 or s == 2 and n % 2 == 0 for s, n in zip(module.stride, size, strict=True))
    ]
    for name in stems:
        model.set_submodule(name, SpaceToDepthConv(model.get_submodule(name), size))
    return len(stems)


class SpaceToDepthConv(nn.Module):
    """A convolution whose axes of stride 2 are read in pairs: (C, T, H, W) -> (4C, T, H/2, W/2).

    The kernel is padded with zeros to an even length that begins at an even pixel. So a kernel of
    7x7 on 3 channels becomes one of 4x4 on 12, with stride 1 (arXiv 1910.03151 has it in 2D).
    """

    def __init__(self, conv: nn.Conv3d, size: Sequence[int]):
        super().__init__()
        self.factors = conv.stride
        if isinstance(conv, SameConv3d):
            pads = same_pads(size, conv.kernel_size, conv.stride)
        else:
            pads = [(pad, pad) for pad in conv.padding]
        kernel_pads, self.pads = [], []
        axes = zip(pads, conv.kernel_size, conv.stride, size, strict=True)
        for (before, after), kernel, stride, length in axes:
            if stride == 1:
                kernel_pads.append((0, 0))
                self.pads.append((before, after))
                continue
            shift = before % 2
            cells = (kernel + shift + 1) // 2  # of the new kernel
            kernel_pads.append((shift, 2 * cells - kernel - shift))
            outputs = (before + length + after - kernel) // 2 + 1
            front = (before + shift) // 2
            self.pads.append((front, outputs - 1 + cells - front - length // 2))
        weight = F.pad(conv.weight.detach(), _for_pad(kernel_pads))
        weight = self._to_depth(weight).contiguous(memory_format=torch.channels_last_3d)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = conv.bias

    def _to_depth(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> (N, a*b*c*C, T/a, H/b, W/c) for the factors a, b, c."""
        n, channels, *size = x.shape
        (a, b, c), (t, h, w) = self.factors, size
        x = x.permute(0, 2, 3, 4, 1).reshape(n, t // a, a, h // b, b, w // c, c, channels)
        x = x.permute(0, 1, 3, 5, 2, 4, 6, 7)
        x = x.reshape(n, t // a, h // b, w // c, a * b * c * channels)
        return x.permute(0, 4, 1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv3d(F.pad(self._to_depth(x), _for_pad(self.pads)), self.weight, self.bias)


def _for_pad(pads: Sequence[tuple[int, int]]) -> list[int]:
    """(before, after) of T, H, W -> the order of F.pad, the last axis first."""
    return [pad for pair in reversed(pads) for pad in pair]


def merge_groups(model: VideoNet, width: int) -> int:
    """Grouped convolutions of fewer than `width` channels a group get fewer, larger groups.

    The weights between channels that were in different groups are zeros.
    """
    number = 0
    for name, conv in list(model.named_modules()):
        if not isinstance(conv, nn.Conv3d) or conv.groups == 1:
            continue
        channels = conv.in_channels // conv.groups
        merged = width // channels
        if merged > 1 and conv.groups % merged == 0:
            model.set_submodule(name, _with_fewer_groups(conv, merged))
            number += 1
    return number


def _with_fewer_groups(conv: nn.Conv3d, merged: int) -> nn.Conv3d:
    """The same convolution with every `merged` groups in one."""
    new = copy.deepcopy(conv)
    new.groups = conv.groups // merged
    out, channels, *kernel = conv.weight.shape
    groups = conv.weight.detach().reshape(new.groups, merged, out // conv.groups, channels, *kernel)
    weight = groups.new_zeros(new.groups, merged, out // conv.groups, merged, channels, *kernel)
    for place in range(merged):
        weight[:, place, :, place] = groups[:, place]
    weight = weight.reshape(out, merged * channels, *kernel)
    weight = weight.contiguous(memory_format=torch.channels_last_3d)
    new.weight = nn.Parameter(weight, requires_grad=False)
    return new
