"""R(2+1)D-34 (Tran et al., arXiv 1711.11248): torchvision's network, the Caffe2 weights' widths."""

from torch import nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, R2Plus1dStem, VideoResNet


def features(in_channels: int) -> nn.Sequential:
    """(N, 3, T, 112, 112) -> (N, 512, T/8, 7, 7)."""
    if in_channels != 3:
        raise ValueError(f"R(2+1)D takes 3 input channels (RGB), not {in_channels}")
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
        elif isinstance(module, nn.Conv3d):  # the replaced ones too
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(net.stem, net.layer1, net.layer2, net.layer3, net.layer4)
