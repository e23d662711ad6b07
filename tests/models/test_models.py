"""The networks' common interface, their heads and their small rows."""

import copy
import io
import random
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import pytest
import torch

from models import NETWORKS, ArchError, create_model, get_arch, list_archs
from models.archs import ARCHS
from models.backbones import BACKBONES
from models.backbones.base import collect
from models.bert import BERT
from models.heads import NonLocalBlock

TINY = [name for name in list_archs() if get_arch(name).backbone == "tiny3D"]


def clips_for(arch: str, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, *get_arch(arch).clip_shape)


def test_tables_name_only_what_exists():
    for spec in ARCHS.values():
        assert spec.head in NETWORKS
        assert spec.input.channels == (3 if spec.modality == "rgb" else 2)
        naming = BACKBONES[spec.backbone].naming.format(spec.frames)
        assert spec.name.startswith(f"{spec.modality}_{naming}")


def test_unknown_name_lists_the_closest():
    with pytest.raises(ArchError, match="rgb_resneXt3D64f101_bert10_FRMB"):
        get_arch("rgb_resnext3d64f101_bert10_FRMB")
    with pytest.raises(ArchError, match="did you mean .* or .*list_archs.py lists all"):
        create_model("zzz", 51)


def test_registry_refuses_duplicates():
    row = get_arch("rgb_tiny3D16f")
    with pytest.raises(ValueError, match="twice"):
        collect([row, row], "name")
    backbone = BACKBONES["tiny3D"]
    for other in (backbone, replace(backbone, name="other"), replace(backbone, naming="other{}f")):
        with pytest.raises(ValueError, match="twice"):
            collect([backbone, other], "name", "naming")


def test_no_classes_is_an_error():
    with pytest.raises(ArchError, match="at least 1"):
        create_model("rgb_tiny3D16f", 0)


@pytest.mark.parametrize(
    "shape",
    [(2, 2, 16, 56, 56), (2, 3, 15, 56, 56), (2, 3, 16, 64, 56), (3, 16, 56, 56)],
)
def test_wrong_clips_say_what_is_taken(shape):
    with pytest.raises(ArchError, match=r"\(N, 3, 16, 56, 56\).*16 frames"):
        create_model("rgb_tiny3D16f", 5)(torch.zeros(shape))


def test_constructor_is_pure():
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    python_state, numpy_state = random.getstate(), np.random.get_state()[1].copy()
    with redirect_stdout(io.StringIO()) as printed:
        first = create_model("rgb_tiny3D16f_bert10_FRMB", 5)
    assert printed.getvalue() == ""
    assert random.getstate() == python_state
    assert (np.random.get_state()[1] == numpy_state).all()
    assert {p.device.type for p in first.parameters()} == {"cpu"}
    torch.manual_seed(1)
    second = create_model("rgb_tiny3D16f_bert10_FRMB", 5)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("arch", TINY)
def test_tiny_networks(arch):
    model = create_model(arch, 5)
    assert sum(p.numel() for p in model.parameters()) <= 1e6
    clips = clips_for(arch)
    tokens = model.forward_tokens(clips)
    assert tokens.shape[:2] == (2, 8)
    logits = model(clips)
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert copy.deepcopy(model).state_dict().keys() == model.state_dict().keys()


def test_tiny_tokens_see_five_frames():
    model = create_model("rgb_tiny3D16f", 5).eval()
    clips = clips_for("rgb_tiny3D16f", 1).requires_grad_()
    tokens = model.forward_tokens(clips)
    for token in range(8):
        (gradient,) = torch.autograd.grad(tokens[0, token].sum(), clips, retain_graph=True)
        frames = gradient.abs().sum(dim=(0, 1, 3, 4)).nonzero().flatten().tolist()
        assert set(frames) <= set(range(2 * token - 2, 2 * token + 3))


def test_tiny_tokens_do_not_know_the_ends_of_a_still_clip():
    model = create_model("rgb_tiny3D16f", 5).eval()
    still = torch.randn(1, 3, 1, 56, 56).expand(-1, -1, 16, -1, -1)
    tokens = model.forward_tokens(still)
    torch.testing.assert_close(tokens, tokens[:, :1].expand_as(tokens))


def test_average_ignores_the_order_of_tokens_and_other_heads_do_not():
    for arch in TINY:
        model = create_model(arch, 5).eval()
        tokens = model.forward_tokens(clips_for(arch))
        same = torch.allclose(
            model.classify_tokens(tokens), model.classify_tokens(tokens.flip(1)), atol=1e-6
        )
        assert same == (get_arch(arch).head == "average"), arch


def test_attention_weights():
    model = create_model("rgb_tiny3D16f_bert10_FRMB", 5).eval()
    clips = clips_for("rgb_tiny3D16f_bert10_FRMB")
    weights = model.attention(clips)
    assert weights.shape == (2, 8, 9, 9)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 8, 9))
    with pytest.raises(ArchError, match="no BERT head"):
        create_model("rgb_tiny3D16f", 5).attention(clips)


def test_attention_weights_are_those_that_the_output_uses():
    bert = BERT(width=64, tokens=4).eval()
    tokens = torch.randn(3, 4, 64)
    block = bert.transformer_blocks[0]
    normed = block.input_sublayer.norm(bert._embed(tokens))
    attention = block.attention
    value = attention._project(normed)[2]  # (N, heads, T, D/heads)
    mixed = (bert.attention_weights(tokens) @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attention.output_linear(mixed), attention(normed))


def test_slowfast_tokens_and_attention():
    shapes = {
        "rgb_slowfast64f_50": (1, 8, 2304),
        "rgb_slowfast64f_50_bert10_FRMB_early": (1, 8, 640),
    }
    with torch.device("meta"):
        clips = torch.empty(1, 3, 64, 224, 224)
        for arch, shape in shapes.items():
            assert create_model(arch, 5).forward_tokens(clips).shape == shape
        late = create_model("rgb_slowfast64f_50_bert10_FRAB_late", 5)
        tokens, weights = late.forward_tokens(clips), late.attention(clips)
    assert {path: t.shape for path, t in tokens.items()} == {
        "slow": (1, 8, 512),
        "fast": (1, 32, 256),
    }
    assert {path: w.shape for path, w in weights.items()} == {
        "slow": (1, 8, 9, 9),
        "fast": (1, 8, 33, 33),
    }


def test_bert_drops_tokens_in_training_only():
    bert = BERT(width=64, tokens=32)
    masks = bert._draw_mask(torch.empty(2000, 32, 64))
    assert masks.shape == (2000, 1, 1, 33)
    assert masks[..., 0].all()
    assert masks[..., 1:].float().mean().item() == pytest.approx(0.8, abs=0.01)
    tokens = torch.randn(2, 32, 64)
    bert.eval()
    assert torch.equal(bert(tokens), bert(tokens))
    bert.train()
    assert not torch.equal(bert(tokens), bert(tokens))


def test_bert_without_a_class_token_is_the_mean_of_the_outputs():
    bert = BERT(width=64, tokens=5, class_token=False).eval()
    assert "clsToken" not in bert.state_dict()
    assert bert.embedding.learnedPosition.pe.shape == (1, 5, 64)
    tokens = torch.randn(3, 5, 64)
    outputs = bert.transformer_blocks[0](tokens + bert.embedding.learnedPosition.pe)
    assert torch.equal(bert(tokens), outputs.mean(dim=1))
    assert bert.attention_weights(tokens).shape == (3, 8, 5, 5)
    bert.keep_probability = 0.1
    masks = bert._draw_mask(torch.empty(2000, 5, 64))
    assert masks.shape == (2000, 1, 1, 5) and masks.any(dim=3).all()  # never none
    assert masks.float().mean().item() == pytest.approx(0.1 + 0.9**5, abs=0.03)
    bert.keep_probability = 0.0
    assert bert._draw_mask(tokens).all()
    assert torch.isfinite(bert.train()(tokens)).all()


@pytest.mark.parametrize(
    ("variant", "layers", "heads", "class_token"),
    [("", 1, 8, True), ("_2layers", 2, 8, True), ("_1head", 1, 1, True), ("_noclass", 1, 8, False)],
)
@pytest.mark.parametrize("bert", ["bert10", "bert2"])
def test_variants_of_bert_by_name(bert, variant, layers, heads, class_token):
    model = create_model(f"rgb_tiny3D16f_{bert}{variant}_FRMB", 3).eval()
    assert model.spec.name == f"rgb_tiny3D16f_{bert}{variant}_FRMB"
    assert len(model.bert.transformer_blocks) == layers
    assert {block.attention.heads for block in model.bert.transformer_blocks} == {heads}
    assert ("bert.clsToken" in model.state_dict()) == class_token
    tokens = torch.randn(2, 8, 64)
    assert model.classify_tokens(tokens).shape == (2, 3)
    assert not torch.allclose(model.classify_tokens(tokens), model.classify_tokens(tokens.flip(1)))


def test_plain_concatenation_is_a_linear_map_of_all_tokens():
    model = create_model("rgb_tiny3D16f_FRMB_flat", 3).eval()
    tokens = torch.randn(2, 8, 64)
    weight, bias = model.fc_action.weight, model.fc_action.bias
    assert weight.shape == (3, 8 * 64)
    torch.testing.assert_close(model.classify_tokens(tokens), tokens.flatten(1) @ weight.T + bias)


def test_a_dropped_token_changes_nothing():
    bert = BERT(width=64, tokens=4).eval()
    block = bert.transformer_blocks[0]
    mask = torch.tensor([True, True, False, True, True]).view(1, 1, 1, 5)
    x = torch.randn(1, 5, 64)
    other = x.clone()
    other[:, 2] = torch.randn(64)
    kept = [0, 1, 3, 4]
    torch.testing.assert_close(block(x, mask)[:, kept], block(other, mask)[:, kept])
    assert not torch.allclose(block(x)[:, kept], block(other)[:, kept])


def test_initial_weights():
    bert10 = create_model("rgb_resneXt3D64f101_bert10_FRMB", 51)
    assert bert10.bert.clsToken.std().item() == pytest.approx(0.02, rel=0.15)
    assert bert10.bert.embedding.learnedPosition.pe.std().item() == pytest.approx(0.02, rel=0.1)
    limit = (6 / (512 + 51)) ** 0.5
    assert bert10.fc_action.weight.abs().max().item() == pytest.approx(limit, rel=0.01)
    assert not bert10.fc_action.bias.any()
    stem = bert10.features[0].weight
    assert stem.std().item() == pytest.approx((2 / (3 * 7**3)) ** 0.5, rel=0.05)
    bert2 = create_model("rgb_I3D64f_bert2_FRMB", 51)
    assert bert2.bert.clsToken.std().item() == pytest.approx(512**-0.5, rel=0.15)
    w_1 = bert2.bert.transformer_blocks[0].feed_forward.w_1
    assert w_1.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not w_1.bias.any()


def test_dropout_rates():
    rates = {name: create_dropout(name) for name in list_archs() if "tiny3D" not in name}
    plain_flow = {"flow_resneXt3D64f101", "flow_I3D64f"}
    assert {name for name, rate in rates.items() if rate == 0.7} == plain_flow
    assert {rate for name, rate in rates.items() if name not in plain_flow} == {0.8}


def create_dropout(name: str) -> float:
    with torch.device("meta"):
        return create_model(name, 5).dropout.p


def test_new_nonlocal_block_is_the_identity():
    block = NonLocalBlock(16).eval()
    x = torch.randn(2, 16, 4, 3, 3)
    torch.testing.assert_close(block(x), x)
    torch.nn.init.ones_(block.W_z[1].weight)
    assert not torch.allclose(block(x), x)
