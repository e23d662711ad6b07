"""torchvision's networks: R(2+1)D of 34 and 18 layers, R3D-18, S3D, Video Swin-T, MViTv2-S."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torchvision.models.video import mvit_v2_s, r2plus1d_18, r3d_18, s3d, swin3d_t
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet

from models.backbones.base import (
    Backbone,
    FileKind,
    InputSpec,
    Pathway,
    droppable,
    inside,
    numbered,
)
from models.backbones.resnext3d import init_kaiming


def _for_channels(conv: nn.Conv3d, in_channels: int) -> nn.Conv3d:
    """`conv` itself if it takes `in_channels`, else a new one that does, alike otherwise."""
    if conv.in_channels == in_channels:
        return conv
    shape = (conv.out_channels, conv.kernel_size, conv.stride, conv.padding)
    return nn.Conv3d(in_channels, *shape, bias=conv.bias is not None)


def _r2plus1d_34() -> VideoResNet:
    """R(2+1)D (Tran et al., arXiv 1711.11248) with the widths of the Caffe2 weights."""
    net = VideoResNet(BasicBlock, [Conv2Plus1D] * 4, [3, 4, 6, 3], R2Plus1dStem)
    # The published weights count the middle planes of every convolution from its own widths,
    # torchvision takes a block's first for both (https://github.com/pytorch/vision/issues/1265).
    for stage, planes in ((net.layer2, 128), (net.layer3, 256), (net.layer4, 512)):
        stage[0].conv2[0] = Conv2Plus1D(planes, planes, 9 * planes // 4)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps, module.momentum = 1e-3, 0.9
    return net


def resnet_features(build: Callable[[], VideoResNet], in_channels: int) -> nn.Sequential:
    """(N, in_channels, T, 112, 112) -> (N, 512, T/8, 7, 7)."""
    net = build()
    net.stem[0] = _for_channels(net.stem[0], in_channels)
    for module in net.modules():
        if isinstance(module, BasicBlock):
            module.conv2.append(droppable())
    layers = nn.Sequential(net.stem, net.layer1, net.layer2, net.layer3, net.layer4)
    return init_kaiming(layers, mode="fan_out")  # the convolutions replaced above, too


def s3d_features(in_channels: int) -> nn.Sequential:
    """(N, in_channels, T, 224, 224) -> (N, 1024, T/8, 7, 7).

    S3D (Xie et al., arXiv 1712.04851): an I3D with separated convolutions.
    """
    layers = s3d().features
    layers[0][0][0] = _for_channels(layers[0][0][0], in_channels)
    return layers


class Swin3D(nn.Module):
    """Video Swin-T (Liu et al., arXiv 2106.13230) before its pooling, under torchvision's names."""

    def __init__(self, in_channels: int):
        super().__init__()
        net = swin3d_t()
        self.patch_embed, self.features, self.norm = net.patch_embed, net.features, net.norm
        self.patch_embed.proj = _for_channels(self.patch_embed.proj, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, T, 224, 224) -> (N, 768, T/2, 7, 7)."""
        x = self.norm(self.features(self.patch_embed(x)))  # (N, T/2, 7, 7, 768)
        return x.permute(0, 4, 1, 2, 3)


class MViT(nn.Module):
    """MViTv2-S (Li et al., arXiv 2112.01526) before its classifier, under torchvision's names.

    MViT classifies its class token, the other heads need tokens along time: the features are
    the patch tokens, shifted together so that their mean is the class token. So the average
    head answers what torchvision's network does, and the tokens still differ as the patches do.
    """

    def __init__(self, in_channels: int):
        super().__init__()
        net = mvit_v2_s()
        self.conv_proj = _for_channels(net.conv_proj, in_channels)
        self.pos_encoding, self.blocks, self.norm = net.pos_encoding, net.blocks, net.norm

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, 16, 224, 224) -> (N, 768, 8, 7, 7)."""
        x = self.conv_proj(x)  # (N, 96, 8, 56, 56)
        size = tuple(x.shape[2:])
        x = self.pos_encoding(x.flatten(2).transpose(1, 2))  # (N, 1 + 8*56*56, 96)
        for block in self.blocks:
            x, size = block(x, size)
        class_token, patches = self.norm(x).split([1, x.shape[1] - 1], dim=1)
        shifted = patches - patches.mean(dim=1, keepdim=True) + class_token
        return shifted.transpose(1, 2).unflatten(2, size)


def _inputs(crop: int, resize: tuple[int, int], *rgb: tuple[float, ...]) -> dict[str, InputSpec]:
    """RGB as the weights' `transforms` say; flow scaled alike for all."""
    return {
        "rgb": InputSpec(crop, resize, 1, *rgb),
        "flow": InputSpec(crop, resize, 1, (0.5, 0.5), (0.226, 0.226)),
    }


# Mean and std that torchvision's Kinetics ResNets and the IG-65M weights share.
_KINETICS = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PYSLOWFAST = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
_RESNET = numbered("stem layer1 layer2 layer3 layer4")
_RESNET_STAGES = {"layer4": 4}

# fmt: off
ROWS = (
    Backbone("r2plus1d", "r2plus1d_{}f_34", partial(resnet_features, _r2plus1d_34),
             (Pathway(512, 8),), _inputs(112, (170, 128), *_KINETICS), files=FileKind(
                 "R(2+1)D-34", ("stem.3.weight", "layer1.2.conv1.0.3.weight"), _RESNET, "fc"),
             factorised=True, stages=_RESNET_STAGES),
    Backbone("r2plus1d_18", "r2plus1d_{}f_18", partial(resnet_features, r2plus1d_18),
             (Pathway(512, 8),), _inputs(112, (171, 128), *_KINETICS), files=FileKind(
                 "R(2+1)D-18", ("stem.3.weight", "layer1.1.conv1.0.3.weight"), _RESNET, "fc"),
             factorised=True, stages=_RESNET_STAGES),
    Backbone("r3d_18", "r3d_{}f_18", partial(resnet_features, r3d_18),
             (Pathway(512, 8),), _inputs(112, (171, 128), *_KINETICS), files=FileKind(
                 "R3D-18", ("stem.0.weight", "layer1.1.conv1.0.weight"), _RESNET, "fc"),
             stages=_RESNET_STAGES),
    Backbone("s3d", "s3d{}f", s3d_features, (Pathway(1024, 8),),
             _inputs(224, (256, 256), *_KINETICS), files=FileKind(
                 "S3D", ("features.0.0.0.weight", "classifier.1.weight"),
                 {"features": "features"}, "classifier.1", pointwise=True),
             factorised=True),
    Backbone("swin3d_t", "swin3d_{}f_t", Swin3D, (Pathway(768, 2),),
             _inputs(224, (340, 256), *_IMAGENET), files=FileKind(
                 "Swin3D-T", ("patch_embed.proj.weight", "norm.weight"),
                 inside("patch_embed features norm"), "head")),
    # MViT's relative positions, and so its weights, are those of one clip length.
    Backbone("mvit_v2_s", "mvit_v2_{}f_s", MViT, (Pathway(768, 2),),
             _inputs(224, (340, 256), *_PYSLOWFAST), only_frames=16, files=FileKind(
                 "MViTv2-S", ("conv_proj.weight", "norm.weight"),
                 inside("conv_proj pos_encoding blocks norm"), "head.1")),
)
# fmt: on
