"""torchvision's 3D ResNets: R(2+1)D of 34 and 18 layers, R3D-18 (Tran et al., arXiv 1711.11248)."""

from torch import nn
from torchvision.models.video import r2plus1d_18, r3d_18
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet

from models.backbones.resnext3d import init_kaiming
from models.backbones.stem import for_channels


def features_34(in_channels: int) -> nn.Sequential:
    """(N, in_channels, T, 112, 112) -> (N, 512, T/8, 7, 7), with the Caffe2 weights' widths."""
    net = VideoResNet(BasicBlock, [Conv2Plus1D] * 4, [3, 4, 6, 3], R2Plus1dStem)
    # The published weights count the middle planes of every convolution from its own widths,
    # torchvision takes a block's first for both (https://github.com/pytorch/vision/issues/1265).
    for stage, planes, midplanes in (
        (net.layer2, 128, 288),
        (net.layer3, 256, 576),
        (net.layer4, 512, 1152),
    ):
        stage[0].conv2[0] = Conv2Plus1D(planes, planes, midplanes)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eps, module.momentum = 1e-3, 0.9
    return _in_a_row(net, in_channels)


def features_18(in_channels: int) -> nn.Sequential:
    """(N, in_channels, T, 112, 112) -> (N, 512, T/8, 7, 7)."""
    return _in_a_row(r2plus1d_18(), in_channels)


def features_r3d(in_channels: int) -> nn.Sequential:
    """(N, in_channels, T, 112, 112) -> (N, 512, T/8, 7, 7); plain 3x3x3 convolutions."""
    return _in_a_row(r3d_18(), in_channels)


def _in_a_row(net: VideoResNet, in_channels: int) -> nn.Sequential:
    net.stem[0] = for_channels(net.stem[0], in_channels)
    layers = nn.Sequential(net.stem, net.layer1, net.layer2, net.layer3, net.layer4)
    return init_kaiming(layers, mode="fan_out")  # the convolutions replaced above, too
