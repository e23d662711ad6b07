"""Shares a network: as a folder, or uploaded as a repository of the Hugging Face hub."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from datasets.files import check_writable
from engine import UsageError
from engine.applying.networks import TrainedNetwork
from engine.exporting.card import make_card
from engine.weights.load import read_state_dict
from engine.weights.shared import WEIGHTS_FILE, write_shared


def share_folder(network: TrainedNetwork, scores: Sequence[Path], folder: Path) -> None:
    """Writes a network's shared folder; raises UsageError for one that holds other files."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / WEIGHTS_FILE).exists():
        raise UsageError(f"{folder} holds other files; name a new folder, or an earlier shared one")
    check_writable(folder)
    content = read_state_dict(network.path)[1]
    if "arch" not in content:  # published weights
        spec = network.spec
        content = {"arch": spec.name, "input": spec.describe_input(), "mirror": network.flip}
    card = make_card(network, content, scores)
    write_shared(folder, content, network.model.state_dict(), list(network.classes), card)


def share_on_hub(network: TrainedNetwork, scores: Sequence[Path], name: str, private: bool) -> str:
    """Uploads a network as the hub's repository NAME or USER/NAME; returns its address.

    Raises UsageError, before anything is written, where nobody is logged in, and for what the hub
    refuses.
    """
    try:
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import HFValidationError, HTTPError
    except ModuleNotFoundError:
        raise UsageError(
            "--to hub:NAME needs the package huggingface-hub: pip install -r requirements.txt"
        ) from None
    if get_token() is None:
        raise UsageError(
            "nobody is logged in at the Hugging Face hub: run `hf auth login` (or set HF_TOKEN), "
            "or share to a folder"
        )
    api = HfApi()
    with tempfile.TemporaryDirectory() as temporary:
        share_folder(network, scores, Path(temporary))
        try:
            repository = api.create_repo(name, private=private, exist_ok=True)
            title = f"Add {network.spec.name}"
            api.upload_folder(
                folder_path=temporary, repo_id=repository.repo_id, commit_message=title
            )
        except (HTTPError, HFValidationError, OSError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UsageError(f"cannot upload to hub:{name}: {reason}") from None
    return str(repository)
