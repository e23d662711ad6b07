"""The flags about the backbone: frozen, slower, recomputed; and BERT's dropped tokens."""

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from engine import UsageError
from engine.config import Recipe
from engine.training.build import prepare_model
from engine.training.epoch import accumulate, take_step
from engine.training.state import TrainingState
from models import ArchError, create_model, list_archs
from models.bert import BERT
from models.finetuning import (
    Recomputed,
    drop_path,
    drop_tokens,
    freeze,
    parameter_groups,
    recompute_activations,
)

FRMB = "rgb_tiny3D16f_bert10_FRMB"
CPU = torch.device("cpu")


def clips(number: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (number, 1, 16, 56, 56, 3), dtype=torch.uint8, generator=generator)
    return pixels, torch.arange(number) % 3


def normalize(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 4, 1, 2, 3).float() / 255 - 0.5


def train(model, steps: int = 2, lr: float = 0.1, frozen=()):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    recipe = Recipe(batch_size=2)
    state = TrainingState(model, optimizer, recipe, frozen)
    state.train_mode()
    for _ in range(steps):
        accumulate(state, *clips(), normalize, recipe, is_last=True)
        take_step(state, recipe)


def changed(model, before: dict) -> set[str]:
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


def test_a_frozen_backbone_does_not_change_at_all():
    model = create_model(FRMB, 3)
    before = copy.deepcopy(model.state_dict())
    train(model, frozen=freeze(model, backbone=True, batch_norms=False))
    moved = changed(model, before)
    assert {key.split(".")[0] for key in moved} == {"features", "bert", "fc_action"}
    assert {key for key in moved if key.startswith("features")} == {
        key
        for key in before
        if key.startswith("features.5")  # the block that FRMB puts in
    }


def test_frozen_batch_norms_keep_statistics_and_weights():
    model = create_model(FRMB, 3)
    before = copy.deepcopy(model.state_dict())
    train(model, frozen=freeze(model, backbone=False, batch_norms=True))
    kept = {key for key in before.keys() - changed(model, before) if key.startswith("features")}
    assert kept == {
        key
        for key in before
        if key.startswith(("features.1.", "features.3.bn", "features.3.downsample.1"))
        or key.startswith(("features.4.bn", "features.4.downsample.1"))
    }


def test_nothing_is_frozen_by_default():
    model = create_model(FRMB, 3)
    assert freeze(model, False, False) == []
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("arch", ["rgb_slowfast64f_50", "rgb_slowfast64f_50_bert10_FRMB_early"])
def test_both_pathways_are_frozen_and_the_new_blocks_are_not(arch):
    model = create_model(arch, 3)
    freeze(model, backbone=True, batch_norms=False)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert "fc_action.weight" in learning or "model.head.projection.weight" in learning
    assert not any(name.startswith(("model.s1", "model.s2", "model.s4_fuse")) for name in learning)
    if "FRMB" in arch:
        assert any(name.startswith("model.s5.pathway0_res2") for name in learning)


def test_every_learning_parameter_gets_a_gradient():
    """DistributedDataParallel waits for each; SlowFast's unused projection is not among them."""
    for arch in ("rgb_slowfast64f_50_bert10_FRMB_late", "rgb_slowfast64f_50_bert10_FRAB_early"):
        model = create_model(arch, 3)
        unused = {n for n, p in model.named_parameters() if not p.requires_grad}
        assert unused == {"model.head.projection.weight", "model.head.projection.bias"}


def test_layer_decay_slows_the_lower_parts():
    model = create_model(FRMB, 3)
    groups = parameter_groups(model, lr=1.0, layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    rates = {name: rate[id(p)] for name, p in model.named_parameters()}
    assert rates["fc_action.weight"] == rates["bert.clsToken"] == rates["features.5.conv1.weight"]
    assert rates["fc_action.weight"] == groups[0]["lr"] == 1.0
    assert rates["features.4.conv1.weight"] == rates["features.4.bn1.bias"] == 0.5
    assert rates["features.3.conv1.weight"] == 0.25
    assert rates["features.0.weight"] == rates["features.1.weight"] == 0.125
    assert parameter_groups(model, 1.0, 1.0) == list(model.parameters())
    before = copy.deepcopy(model.state_dict())
    torch.optim.SGD(groups, lr=1.0)
    for group in groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(groups, lr=9.0).step()
    for name, value in model.named_parameters():
        torch.testing.assert_close(before[name] - value, torch.full_like(value, rates[name]))


@pytest.mark.parametrize("arch", list_archs())
def test_every_backbone_has_depths(arch):
    with torch.device("meta"):
        model = create_model(arch, 3)
    depths = model.backbone_depth()
    assert sorted(set(depths.values())) == list(range(1 + max(depths.values())))
    assert max(depths.values()) >= 2
    heads = {name for name, _ in model.named_parameters()} - depths.keys()
    assert heads and all(not name.startswith("features.0.") for name in heads)


def test_drop_tokens_sets_bert_s_mask():
    model = create_model(FRMB, 3)
    bert = next(module for module in model.modules() if isinstance(module, BERT))
    tokens = torch.zeros(2000, 8, 64)
    shares = []
    for probability in (None, 0.0, 0.5):
        if probability is not None:
            drop_tokens(model, probability)
        mask = bert._draw_mask(tokens)[:, 0, 0]
        assert mask[:, 0].all()  # the class token is always attended
        shares.append(1 - mask[:, 1:].float().mean().item())
    assert shares == pytest.approx([0.2, 0.0, 0.5], abs=0.02) and shares[1] == 0
    with pytest.raises(ArchError, match="rgb_tiny3D16f has no BERT head"):
        drop_tokens(create_model("rgb_tiny3D16f", 3), 0.1)


def drops(model, part: str = "") -> list[float]:
    """The probabilities of the stochastic depth layers below a part, each layer once a name."""
    named = model.get_submodule(part).named_modules(remove_duplicate=False)
    return [module.p for _, module in named if isinstance(module, StochasticDepth)]


def test_drop_path_grows_linearly_with_depth():
    with torch.device("meta"):
        deep, two = (create_model(f"rgb_{n}", 3) for n in ("resneXt3D64f101", "slowfast64f_50"))
        reduced = create_model(FRMB, 3)
    for model in (deep, two, reduced):
        assert set(drops(model)) == {0.0}
        drop_path(model, 0.2)
    assert drops(deep) == pytest.approx([0.2 * block / 33 for block in range(1, 34)])
    for stage, (first, last) in {"s2": (1, 3), "s3": (4, 7), "s4": (8, 13), "s5": (14, 16)}.items():
        expected = [0.2 * block / 16 for block in range(first, last + 1)]
        assert drops(two, f"model.{stage}") == pytest.approx(expected * 2)  # slow, then fast
    assert drops(reduced) == pytest.approx([0.1, 0.2, 0])  # the new block is always computed


@pytest.mark.parametrize("arch", list_archs())
def test_residual_backbones_drop_paths_and_others_refuse(arch):
    with torch.device("meta"):
        model = create_model(arch, 3)
    keys = list(model.state_dict())
    if "I3D" in arch or "s3d" in arch:
        with pytest.raises(ArchError, match=f"--drop-path.*{arch} has none"):
            drop_path(model, 0.2)
        return
    drop_path(model, 0.2)
    assert max(drops(model)) == pytest.approx(0.2)
    assert list(model.state_dict()) == keys and not any(".drop" in key for key in keys)


@pytest.mark.parametrize("arch", ["rgb_tiny3D16f", "rgb_r2plus1d_16f_18", "rgb_slowfast64f_50"])
def test_a_dropped_branch_leaves_the_shortcut_and_its_mean_is_the_branch(arch):
    model = create_model(arch, 3)
    drop_path(model, 1.0)
    blocks = {
        "rgb_tiny3D16f": ("features.5", 64, lambda b, x: b.downsample(x)),
        "rgb_r2plus1d_16f_18": ("features.4.1", 512, lambda b, x: x),
        "rgb_slowfast64f_50": ("model.s5.pathway0_res2", 2048, lambda b, x: x),
    }
    name, width, shortcut = blocks[arch]
    block = model.get_submodule(name).train()
    x = torch.randn(3, width, 2, 4, 4)
    torch.testing.assert_close(block(x), shortcut(block, x).relu())
    (layer,) = (m for m in block.modules() if isinstance(m, StochasticDepth))
    layer.p = 0.25
    rows = layer(torch.full((4000, 2, 3), 3.0))  # each clip for itself
    assert set(rows.unique().tolist()) == {0.0, 4.0}
    assert torch.equal(rows, rows[:, :1, :1].expand_as(rows))
    assert rows.mean().item() == pytest.approx(3, rel=0.05)


def test_drop_path_changes_training_alone():
    torch.manual_seed(0)
    usual = create_model(FRMB, 3)
    off, without, on = (copy.deepcopy(usual) for _ in range(3))
    drop_path(off, 0.0)
    drop_path(on, 0.6)
    for name, module in list(without.named_modules()):
        if isinstance(module, StochasticDepth):
            without.set_submodule(name, nn.Identity())
    inputs = normalize(clips()[0].flatten(0, 1))
    assert torch.equal(usual.eval()(inputs), on.eval()(inputs))
    for model in (usual, off, without, on):
        torch.manual_seed(1)
        train(model)
    assert changed(usual, off.state_dict()) == changed(usual, without.state_dict()) == set()
    assert changed(usual, on.state_dict())


def test_drop_path_and_recomputing_drop_the_same_branches():
    torch.manual_seed(0)
    usual = create_model(FRMB, 3)
    drop_path(usual, 0.6)
    thrifty = copy.deepcopy(usual)
    recompute_activations(thrifty)
    for model in (usual, thrifty):
        torch.manual_seed(1)
        train(model)
    for key, value in usual.state_dict().items():
        torch.testing.assert_close(thrifty.state_dict()[key], value)


def test_synchronised_batch_norm_is_torch_s_and_needs_gpus():
    model = create_model(FRMB, 3)
    with pytest.raises(UsageError, match="--sync-bn computes on GPUs alone"):
        prepare_model(model, Recipe(sync_bn=True), CPU)
    keys = list(model.state_dict())
    converted = prepare_model(model, Recipe(sync_bn=True), torch.device("cuda"))
    assert list(converted.state_dict()) == keys
    kinds = {type(m).__name__ for m in converted.modules() if "BatchNorm" in type(m).__name__}
    assert kinds == {"SyncBatchNorm"}


def saved_bytes(model) -> int:
    """What the forward pass keeps for the gradient."""
    sizes = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(normalize(clips()[0].flatten(0, 1))).sum()
    return sum(sizes.values())


def test_recomputed_activations_train_the_same_on_less_memory():
    torch.manual_seed(0)
    usual = create_model(FRMB, 3)
    thrifty = copy.deepcopy(usual)
    recompute_activations(thrifty)
    assert saved_bytes(thrifty) < 0.6 * saved_bytes(usual)  # the stem is no block
    copied = copy.deepcopy(thrifty)  # as the average of the weights is made
    for model in (usual, thrifty):
        torch.manual_seed(1)
        train(model)
    for key, value in usual.state_dict().items():  # running statistics among them
        torch.testing.assert_close(thrifty.state_dict()[key], value)
    inputs = normalize(clips()[0].flatten(0, 1))
    assert not torch.equal(copied.eval()(inputs), thrifty.eval()(inputs))
    assert torch.equal(usual.eval()(inputs), thrifty.eval()(inputs))


@pytest.mark.parametrize("arch", list_archs())
def test_recomputing_changes_no_key_and_no_parameter(arch):
    with torch.device("meta"):
        model = create_model(arch, 3)
    keys, parameters = list(model.state_dict()), list(model.named_parameters())
    replaced, depths = model.replaced_blocks(), model.backbone_depth()
    entries = {key: id(value) for key, value in model.state_dict(keep_vars=True).items()}
    frozen = [len(freeze(copy.deepcopy(model), *which)) for which in ((1, 0), (0, 1))]
    recompute_activations(model)
    assert sum(isinstance(module, Recomputed) for module in model.modules()) >= 2
    assert list(model.state_dict()) == keys
    assert {key: id(v) for key, v in model.state_dict(keep_vars=True).items()} == entries
    for (name, own), (earlier, parameter) in zip(model.named_parameters(), parameters, strict=True):
        assert name == earlier and own is parameter
    assert (model.replaced_blocks(), model.backbone_depth()) == (replaced, depths)
    assert [len(freeze(copy.deepcopy(model), *which)) for which in ((1, 0), (0, 1))] == frozen
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_a_copy_of_a_recomputed_network_trains_and_evaluates_the_same():
    torch.manual_seed(0)
    model = create_model(FRMB, 3)
    recompute_activations(model)
    copied = torch.optim.swa_utils.AveragedModel(model).module
    mine = {id(value) for value in model.state_dict(keep_vars=True).values()}
    assert not mine & {id(value) for value in copied.state_dict(keep_vars=True).values()}
    before = copy.deepcopy(model.state_dict())
    for net in (model, copied):
        torch.manual_seed(1)
        train(net)
    # Attention does not depend on the keys' bias: its gradient is rounding, or 0.
    kept = before.keys() - changed(model, before)
    assert kept <= {"bert.transformer_blocks.0.attention.linear_layers.1.bias"}
    assert changed(copied, model.state_dict()) == set()
    inputs = normalize(clips()[0].flatten(0, 1))
    assert torch.equal(model.eval()(inputs), copied.eval()(inputs))


def test_blocks_with_two_names_stay_one_when_recomputed():
    with torch.device("meta"):
        model = create_model("rgb_slowfast64f_50_bert10_FRMB_early", 3)
    recompute_activations(model)
    block = model.get_submodule("model.s5.pathway0_res2")
    assert block.conv1.weight is model.mapper_slow.conv1.weight


def test_frozen_blocks_stay_in_evaluation_mode_when_recomputed():
    model = create_model(FRMB, 3)
    recompute_activations(model)
    before = copy.deepcopy(model.state_dict())
    train(model, frozen=freeze(model, backbone=True, batch_norms=False))
    moved = {key for key in changed(model, before) if key.startswith("features")}
    assert moved == {key for key in before if key.startswith("features.5")}
