"""Two trainings of one network, averaged."""

import pytest
import torch

from engine.applying.networks import load_network
from engine.files import CheckpointError
from scripts import average_weights
from tests.engine.applying.made import save_network


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_every_weight_is_the_mean_and_the_file_is_a_network(tmp_path, share):
    first = save_network(tmp_path / "a.pth")
    second = save_network(tmp_path / "b.pth")
    content = torch.load(second, weights_only=True)
    content["state_dict"] = {k: v + 1 for k, v in content["state_dict"].items()}
    torch.save(content, second)
    output = tmp_path / "c.pth"
    flags = [str(first), str(second), "--share", str(share), "--output", str(output)]
    assert average_weights.main(flags) == 0
    states = [load_network(path).model.state_dict() for path in (first, second, output)]
    for key, value in states[2].items():
        if value.is_floating_point():
            torch.testing.assert_close(value, states[0][key] + share)
        else:
            assert torch.equal(value, states[1][key])
    assert "optimizer" not in torch.load(output, weights_only=True)


def test_other_networks_are_refused(tmp_path):
    first = save_network(tmp_path / "a.pth")
    second = save_network(tmp_path / "b.pth", "rgb_tiny3D16f")
    with pytest.raises(CheckpointError, match="only weights of one network"):
        average_weights.main([str(first), str(second), "--output", str(tmp_path / "c.pth")])
    assert not (tmp_path / "c.pth").exists()
