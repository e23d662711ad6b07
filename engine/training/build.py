"""What a training needs, built from its flags."""

import argparse

import torch
from torch import nn

from engine import UsageError
from models import VideoNet
from models.finetuning import drop_tokens, recompute_activations


def prepare_model(model: VideoNet, args: argparse.Namespace, device: torch.device) -> VideoNet:
    """The network as the flags want it trained; raises UsageError for what it does not have."""
    if args.drop_tokens is not None:
        drop_tokens(model, args.drop_tokens)
    if args.activation_checkpointing:
        recompute_activations(model)
    if args.sync_bn:
        if device.type != "cuda":
            raise UsageError("--sync-bn computes on GPUs alone; on a CPU use --freeze-bn")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model
