"""The flags about the backbone: frozen, slower, recomputed; and BERT's dropped tokens."""

import copy

import pytest
import torch

from engine import UsageError
from engine.config import Recipe
from engine.training.build import prepare_model
from engine.training.epoch import accumulate, take_step
from engine.training.state import TrainingState
from models import ArchError, create_model, list_archs
from models.bert import BERT
from models.finetuning import (
    Recomputed,
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
    assert len(changed(model, before)) == len(before)
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
