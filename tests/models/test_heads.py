"""The temporal heads beyond the paper's: shapes, gradients, seeds, and starting as averaging."""

import pytest
import torch
import torch.nn.functional as F

from models import create_model, get_arch

HEADS = ("attentive", "probe", "step", "bert10_zero", "bert2_zero")
ZERO_STARTED = ("attentive", "probe", "bert10_zero", "bert2_zero")


def new_network(head, seed=0):
    torch.manual_seed(seed)
    return create_model(f"rgb_tiny3D16f_FRMB_{head}", 5)


def some_tokens(model, batch=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, model.num_tokens, model.width, generator=generator)


@pytest.mark.parametrize("head", HEADS)
def test_shape_and_a_gradient_for_every_parameter_that_is_past_a_zero(head):
    model = new_network(head)
    tokens = some_tokens(model)
    logits = model.classify_tokens(tokens)
    assert logits.shape == (3, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(4):  # zeros open one after the other
        optimizer.zero_grad()
        F.cross_entropy(model.classify_tokens(tokens), torch.tensor([0, 1, 2])).backward()
        optimizer.step()
    own = {n: p for n, p in model.named_parameters() if not n.startswith("features")}
    silent = [n for n, p in own.items() if p.grad is None or not p.grad.any()]
    # A bias of keys moves all scores of a query alike.
    assert set(silent) <= {"bert.transformer_blocks.0.attention.linear_layers.1.bias"}


@pytest.mark.parametrize("head", HEADS)
def test_the_seed_tells_the_weights(head):
    first, same, other = (new_network(head, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("head", ZERO_STARTED)
def test_a_new_zero_started_head_averages(head):
    model = new_network(head).eval()
    tokens = some_tokens(model)
    seen = F.normalize(tokens, dim=-1) if head.startswith("bert2") else tokens
    wanted = model.fc_action(seen.mean(dim=1))
    torch.testing.assert_close(model.classify_tokens(tokens), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("head", ["bert10_zero", "bert2_zero", "step"])
def test_order_counts_once_it_has_learned(head):
    model = new_network(head)
    tokens = some_tokens(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(model.classify_tokens(tokens), torch.tensor([0, 1, 2])).backward()
        optimizer.step()
    model.eval()
    reversed_ = model.classify_tokens(tokens.flip(1))
    assert not torch.allclose(model.classify_tokens(tokens), reversed_, atol=1e-3)


def test_names_compose_them_and_say_what_they_are():
    assert get_arch("rgb_I3D64f_bert2_zero").zero_start
    assert not get_arch("rgb_I3D64f_bert2").zero_start
    assert get_arch("rgb_I3D64f_step").head == "step"
    assert get_arch("rgb_I3D64f_FRMB_probe").reduction == "FRMB"
    sizes = {head: sum(p.numel() for p in new_network(head).parameters()) for head in HEADS}
    assert sizes["probe"] < sizes["step"] < sizes["attentive"] < sizes["bert10_zero"]
