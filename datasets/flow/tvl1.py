"""TV-L1 optical flow in PyTorch, batched over frame pairs, on any device.

    minimise over u:  sum over pixels of  lambda |I1(x + u) - I0(x)|  +  |grad u1| + |grad u2|

Zach, Pock and Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow" (DAGM 2007),
as set out by Sanchez, Meinhardt-Llopis and Facciolo (IPOL 2013), with the defaults and the
stopping rule of OpenCV's DualTVL1: on the same frames it gives the same flow (docs/FLOW.md).

From coarse to fine, I1 is warped by the flow so far and linearised there, which leaves
rho(u) = rho_c + <g, u> with g the warped gradient. Two steps then alternate: v moves u along g to
lessen |rho|, at most lambda theta |g| far, and p, the dual of the total variation, smooths it:

    u <- v + theta div p              p <- (p + tau/theta grad u) / (1 + tau/theta |grad u|)
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.flow.median import median_5x5, median_5x5_opencv

SMALLEST_LEVEL = 16  # pixels; a pyramid ends above levels with a shorter side
TINY = torch.finfo(torch.float32).eps  # squared gradients up to this say nothing
GPU_CHUNK = 64 * 340 * 256  # pixels worked on at once, which take about 1 GB


@dataclass(frozen=True)
class TVL1Parameters:
    """The names of OpenCV's DualTVL1, and its defaults.

    Attributes:
        tau: time step of the dual variable.
        lambda_: weight of the data term; smaller is smoother.
        theta: how tightly u and v are coupled.
        scales, scale_step: levels of the pyramid, and the size of each relative to the finer one.
        warps: linearisations a level.
        outer, inner: at most so many median filterings a warp, and iterations after each.
        epsilon: a warp ends when the root mean square change of u falls to this, in pixels.
    """

    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    scales: int = 5
    scale_step: float = 0.8
    warps: int = 5
    outer: int = 10
    inner: int = 30
    epsilon: float = 0.01


class TVL1:
    """Computes the flow of frame pairs.

    Args:
        device: where to compute.
        parameters: of the method.
        compiled: fuse the inner iterations with `torch.compile`; None: on a CUDA device, where
            memory bandwidth is the limit. Without a working compiler it runs unfused.

    Attributes:
        pixel_iterations: pixels times inner iterations computed so far, to compute costs from.
        chunk_pixels: worked on at once. On a CPU one pair, which stays in its cache.
        check_every: iterations between the host's checks whether any pair still iterates. More
            than one on a GPU, which would wait for the host each time.
    """

    def __init__(
        self,
        device: str = "cpu",
        parameters: TVL1Parameters | None = None,
        compiled: bool | None = None,
    ):
        self.device = torch.device(device)
        self.parameters = parameters or TVL1Parameters()
        self.pixel_iterations = 0
        on_cpu = self.device.type == "cpu"
        self.chunk_pixels, self.check_every = (1, 1) if on_cpu else (GPU_CHUNK, 10)
        self._iterate = iterate
        self._median = median_5x5_opencv if on_cpu else median_5x5
        if self.device.type == "cuda" if compiled is None else compiled:
            self._iterate, self._median = _Compiled(iterate), _Compiled(median_5x5)

    @torch.inference_mode()
    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Grey uint8 (N, H, W) twice -> displacement in pixels, float32 (N, 2, H, W)."""
        size = max(1, self.chunk_pixels // (first.shape[1] * first.shape[2]))
        frames = [torch.from_numpy(f)[:, None].split(size) for f in (first, second)]
        return np.concatenate([self._chunk(*pair) for pair in zip(*frames, strict=True)])

    def _chunk(self, *frames: Tensor) -> np.ndarray:
        i0, i1 = (pyramid(f.to(self.device).float(), self.parameters) for f in frames)
        flow = torch.zeros_like(i0[-1]).repeat(1, 2, 1, 1)
        for level in zip(reversed(i0), reversed(i1), strict=True):
            flow = F.interpolate(flow, level[0].shape[2:], mode="bilinear")
            flow /= self.parameters.scale_step
            self._level(*level, flow)
        return flow.cpu().numpy()

    def _level(self, i0: Tensor, i1: Tensor, u: Tensor) -> None:
        """Improves, in place, the flow (N, 2, H, W) that a coarser level of the pyramid gave."""
        source = torch.cat([i1, centered_gradient(i1)], 1)
        p = u.new_zeros(len(u), 2, 2, *u.shape[2:])  # N, axis of the derivative, x or y, H, W
        for _ in range(self.parameters.warps):
            x = u[:, 0] + torch.arange(u.shape[3], device=u.device)
            y = u[:, 1] + torch.arange(u.shape[2], device=u.device)[:, None]
            i1w, g = sample(source, x, y, "bicubic", "zeros").split([1, 2], dim=1)
            rho_c = i1w - i0 - (g * u).sum(1, keepdim=True)
            self._solve(u, p, rho_c, g)

    def _solve(self, u: Tensor, p: Tensor, rho_c: Tensor, g: Tensor) -> None:
        """Iterates, in place, until each pair has converged by itself."""
        scale = -1 / g.square().sum(1, keepdim=True).clamp(min=TINY)
        line = torch.cat([rho_c, g], 1) * scale  # -rho(u) / |g|^2 = line0 + line1 u1 + line2 u2
        going = torch.arange(len(u), device=u.device)  # a cut never converges: it iterates alone
        for _ in range(self.parameters.outer):
            part_u, part_p = self._median(u[going]), p[going]
            active = self._inner(part_u, part_p, line[going], g[going])
            u[going], p[going] = part_u, part_p
            going = going[active.flatten() > 0]
            if len(going) == 0:
                break

    def _inner(self, u: Tensor, p: Tensor, line: Tensor, g: Tensor) -> Tensor:
        """The iterations between two median filterings; returns 1 for pairs not yet converged."""
        limit = self.parameters.epsilon**2 * u[0, 0].numel()
        active = u.new_ones(len(u), 1, 1, 1)  # a pair that has converged is left as it is
        for number in range(1, self.parameters.inner + 1):
            change = self._iterate(u, p, line, g, active, self.parameters)
            active = active * (change > limit)
            self.pixel_iterations += u[:, 0].numel()
            if number % self.check_every == 0 and not active.any():
                break
        return active


def iterate(
    u: Tensor, p: Tensor, line: Tensor, g: Tensor, active: Tensor, parameters: TVL1Parameters
) -> Tensor:
    """One iteration in place on u (N, 2, H, W) and p (N, 2, 2, H, W), where `active` is 1, not 0.

    Returns the sum of squared changes of u, (N, 1, 1, 1). Few passes over memory, since those
    are what it costs: fused multiply-adds, and one array for all the slopes.
    """
    theta, limit = parameters.theta, parameters.lambda_ * parameters.theta
    px, py = p[:, 0], p[:, 1]
    step = torch.addcmul(line[:, :1], line[:, 1:2], u[:, :1]).addcmul_(line[:, 2:], u[:, 1:])
    change = step.clamp_(-limit, limit) * g  # v - u
    change.add_(px, alpha=theta).add_(py, alpha=theta)  # theta div p: backward differences
    change[..., 1:].sub_(px[..., :-1], alpha=theta)
    change[..., 1:, :].sub_(py[..., :-1, :], alpha=theta)
    u.addcmul_(change, active)
    slope = torch.zeros_like(p)  # grad u: forward differences, 0 beyond the border
    slope[:, 0, ..., :-1] = u[..., 1:] - u[..., :-1]
    slope[:, 1, ..., :-1, :] = u[..., 1:, :] - u[..., :-1, :]
    rate = active * (parameters.tau / theta)
    norm = slope[:, 0].square().addcmul_(slope[:, 1], slope[:, 1]).sqrt_()
    norm.mul_(rate).add_(1)
    p.addcmul_(slope, rate[:, None]).div_(norm[:, None])
    return change.square_().sum((1, 2, 3), keepdim=True)


def pyramid(images: Tensor, parameters: TVL1Parameters) -> list[Tensor]:
    """The images (N, 1, H, W) and smaller ones, each sampled bilinearly from the one before.

    The grid keeps the exact step where the size is rounded, as OpenCV's resize does.
    """
    levels, step = [images], parameters.scale_step
    while len(levels) < parameters.scales:
        height, width = (round(size * step) for size in levels[-1].shape[2:])
        if min(height, width) < SMALLEST_LEVEL:
            break
        x = (torch.arange(width, device=images.device) + 0.5) / step - 0.5
        y = (torch.arange(height, device=images.device) + 0.5) / step - 0.5
        x, y = x.expand(len(images), height, width), y[:, None].expand(len(images), height, width)
        levels.append(sample(levels[-1], x, y, "bilinear", "border"))
    return levels


def sample(images: Tensor, x: Tensor, y: Tensor, mode: str, outside: str) -> Tensor:
    """images (N, C, H, W) at positions x, y (N, h, w) in pixels -> (N, C, h, w)."""
    height, width = images.shape[2:]
    grid = torch.stack([x * (2 / (width - 1)) - 1, y * (2 / (height - 1)) - 1], -1)
    return F.grid_sample(images, grid, mode=mode, padding_mode=outside, align_corners=True)


def centered_gradient(images: Tensor) -> Tensor:
    """(N, 1, H, W) -> (N, 2, H, W): half the difference of the neighbours; borders repeat."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    along_x = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    along_y = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    return torch.cat([along_x, along_y], 1) / 2


class _Compiled:
    """A function through `torch.compile`, or as it is where there is no working compiler."""

    def __init__(self, function):
        self.plain, self.fused = function, torch.compile(function, dynamic=True)

    def __call__(self, *args):
        if self.fused is None:
            return self.plain(*args)
        try:
            return self.fused(*args)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            logging.getLogger(__name__).warning("TV-L1 runs unfused, it cannot compile: %s", reason)
            self.fused = None
            return self.plain(*args)
