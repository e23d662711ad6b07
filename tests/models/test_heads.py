"""The temporal heads beyond the paper's: shapes, gradients, seeds, and starting as averaging."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from models import NETWORKS, ArchError, create_model, get_arch
from models.names import with_head

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


BERTS = [f"{bert}{more}" for bert in ("bert10", "bert2") for more in ("", "_zero", "_noclass")]
OTHERS = ("", "flat", "concatenation", "lstm", "attentive", "probe", "step")


def two_streams(head, seed=0):
    spec = with_head(replace(get_arch("rgb_tiny3D16f_FRMB"), streams=2), head)
    torch.manual_seed(seed)
    return NETWORKS[spec.head](spec, 5)


@pytest.mark.parametrize("head", BERTS)
def test_both_streams_and_their_embeddings_get_a_gradient(head):
    model = two_streams(head)
    assert model.num_tokens == 16 and model.bert.streams.shape == (1, 2, 1, 64)
    positions = model.bert.embedding.learnedPosition.pe
    assert positions.shape == (1, 8 + (not head.endswith("noclass")), 64)
    tokens = some_tokens(model).requires_grad_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # zeros open
        optimizer.zero_grad()
        logits = model.classify_tokens(tokens)
        F.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
        optimizer.step()
    assert logits.shape == (3, 5)
    assert all(own.any() for own in tokens.grad.chunk(2, dim=1))
    assert all(own.any() for own in model.bert.streams.grad[0])
    assert positions.grad[0].any(dim=1).all()


@pytest.mark.parametrize("head", BERTS)
def test_only_the_embedding_tells_the_streams_apart(head):
    model = two_streams(head, seed=3).eval()
    tokens = some_tokens(model)
    swapped = tokens.roll(8, dims=1)
    weight = model.bert.transformer_blocks[0].attention.output_linear.weight
    with torch.no_grad():
        torch.nn.init.normal_(weight)  # zero in some
        model.bert.streams[:, 1] += 1
        own, other = model.classify_tokens(tokens), model.classify_tokens(swapped)
        assert not torch.allclose(own, other, atol=1e-4)
        model.bert.streams.copy_(model.bert.streams.flip(1))
        torch.testing.assert_close(model.classify_tokens(swapped), own)
        model.bert.streams.zero_()
        torch.testing.assert_close(model.classify_tokens(swapped), model.classify_tokens(tokens))
        attention = model.token_attention(tokens)
    size = 16 + (not head.endswith("noclass"))
    assert attention.shape == (3, model.spec.heads, size, size)


def test_two_streams_are_told_by_the_seed_and_take_no_clips():
    first, same, other = (two_streams("bert2", seed).bert.streams for seed in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert 0.5 < first.std() * 64**0.5 < 1.5  # initialised as positions are
    for head in ("", "bert2"):
        with pytest.raises(ArchError, match="on 2 streams takes joined tokens, no clips"):
            two_streams(head)(torch.zeros(1, 3, 16, 56, 56))
    one = new_network("bert2")
    assert one.bert.streams is None and not any("streams" in key for key in one.state_dict())


@pytest.mark.parametrize("head", ["bert10_zero", "bert2_zero"])
def test_zero_started_on_two_streams_averages_both(head):
    model = two_streams(head).eval()
    tokens = some_tokens(model)
    seen = F.normalize(tokens, dim=-1) if head.startswith("bert2") else tokens
    wanted = model.fc_action(seen.mean(dim=1))
    torch.testing.assert_close(model.classify_tokens(tokens), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("head", OTHERS)
def test_other_heads_take_as_many_tokens(head):
    model = two_streams(head)
    assert model.classify_tokens(some_tokens(model)).shape == (3, 5)
