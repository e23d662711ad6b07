"""What a benchmark runs on: the machine, versions, and settings that speeds depend on."""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import torch
import torchvision

from engine.files import ROOT

# environment variables that change how fast the same code is
SETTINGS = (
    *("OMP_", "GOMP_", "KMP_", "MKL_", "ONEDNN_", "DNNL_", "MALLOC_", "THP_", "LD_PRELOAD"),
    *("TORCH", "PYTORCH_", "CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_TF32"),
)


def cpu_name() -> str:
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"model name\s*: (.*)", info)
    return name[1] if name else platform.machine()


def describe_machine(device: torch.device, threads: int) -> str:
    """A line that says what speeds were measured on."""
    text = f"{cpu_name()}, {threads} of {os.cpu_count()} threads"
    gpu = f"; PyTorch's engines on {torch.cuda.get_device_name()}" if device.type == "cuda" else ""
    return f"{text}{gpu}; OpenCV {cv2.__version__}, PyTorch {torch.__version__}"


def machine_facts() -> dict:
    """All that is known of the machine and its software, for a JSON file."""
    onednn = re.search(r"(?:MKL-DNN|oneDNN) v(\S+)", torch.__config__.show())
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = ""
    if shutil.which("git"):
        commit = subprocess.run(describe, capture_output=True, text=True).stdout.strip()
    return {
        "cpu": cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "transparent_huge_pages": pages.read_text().strip() if pages.exists() else None,
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
            "opencv": cv2.__version__,
            "onednn": onednn[1] if onednn else None,
            "cudnn": torch.backends.cudnn.version(),
        },
        "settings": {k: v for k, v in sorted(os.environ.items()) if k.startswith(SETTINGS)},
        "commit": commit or None,
    }
