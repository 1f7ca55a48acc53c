"""Real-space terms on a GPU: one Triton kernel for sums and derivatives, without temporaries.

Optional: without Triton, for kernels it does not know, or where it fails to compile (a warning says so), the
torch operations of `real` do the same. With TRITON_INTERPRET=1 it runs on a CPU, slowly, for tests.

One launch serves all potentials: a program sums all images of one pair of one crystal for one of them.
Distances and sums are in float64, what a term takes in between in float64 or float32.
"""

from __future__ import annotations

import functools
import math
import os
import warnings

import torch
from torch import Tensor

from potnet.lattice.kernels import ExponentialKernel, Kernel, PowerKernel

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

# Images at a time.
_BLOCK = 64
# Terms of the Chebyshev expansion of erfcx, and the scale of its variable (x - s) / (x + s).
_DEGREE, _SCALE = 28, 3.0
_failed = False


def applies(kernels: list[Kernel], device: torch.device) -> bool:
    """Whether the kernel can be used for these potentials on this device."""
    if _failed or not (device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"):
        return False
    if triton is None:
        return False
    kinds = [_kind(kernel) for kernel in kernels]
    return all(kind is not None and _verified(kind, device) for kind in kinds)


def _kind(kernel: Kernel) -> int | None:
    """2 p of a power, 0 for an exponential, None for anything else."""
    if type(kernel) is PowerKernel and (2 * kernel.p) % 1 == 0 and kernel.p <= 6:
        return int(2 * kernel.p)
    return 0 if type(kernel) is ExponentialKernel else None


@functools.lru_cache(maxsize=64)
def _verified(kind: int, device: torch.device) -> bool:
    """Whether the compiled kernel agrees with torch on two pairs: asked once in a process."""
    from potnet.lattice.real import RealSum

    global _failed
    kernel = PowerKernel(kind / 2) if kind else ExponentialKernel(3.0)
    eta, cutoff = torch.tensor([[0.2], [9.0]], dtype=torch.float64, device=device).unbind(0)
    one = torch.arange(-2.0, 3.0, dtype=torch.float64, device=device)
    images = torch.cartesian_prod(one, one, one)[None]
    mask = torch.ones(1, images.shape[1], dtype=torch.bool, device=device)
    translations = images * torch.tensor([3.1, 3.6, 4.3], dtype=torch.float64, device=device)
    vectors = torch.tensor([[[0.0, 0.0, 0.0], [0.7, 1.1, -1.3]]], dtype=torch.float64, device=device)
    found = real_terms(vectors, translations, mask, None, eta, cutoff, [kernel])
    if found is None:
        return False
    plain = RealSum(eta, cutoff, [kernel], images, mask, None, math.inf, True)
    with torch.no_grad():
        expected = plain._dense_slopes(vectors, translations, slice(0, 2))
    difference = float(((found[0] - expected).abs() / expected.abs().amax()).amax())
    if not difference < 1e-11:
        _failed = True
        warnings.warn(
            f"the Triton kernel is wrong here by {difference:.1e} of the largest value; torch is used",
            stacklevel=2,
        )
        return False
    return True


def real_terms(
    vectors: Tensor,
    translations: Tensor,
    mask: Tensor,
    pairs: Tensor | None,
    eta: Tensor,
    cutoff: Tensor,
    kernels: list[Kernel],
    *,
    single: bool = False,
) -> tuple[Tensor, Tensor] | None:
    """Sums over images and their derivatives.

    Args:
        vectors: (b, m, 3) pairs, Å; the pair at index 0 is an atom with itself.
        translations: (b, K, 3) Å.
        mask: (b, K), which of them count.
        pairs: (b, m), which pairs count; None for all.
        eta: (b,) 1/Å².
        cutoff: (b,) Å.
        kernels: Q kernels for which `applies` is true.
        single: Exponentials and the like in float32.

    Returns:
        (b, m, Q, 10): sums, derivatives by the vector (3) and by strain (6, Voigt); and squared shortest
        distances (b, m), infinite where there is no term. None if the kernel cannot run here.
    """
    global _failed
    b, m = vectors.shape[:2]
    vectors, translations = vectors.contiguous(), translations.contiguous()
    if pairs is None:
        pairs = torch.ones(b, m, dtype=torch.bool, device=vectors.device)
    counts, sums = mask.to(torch.int32).contiguous(), pairs.to(torch.int32).contiguous()
    found = vectors.new_empty(len(kernels), b, m, 10)
    nearest2 = vectors.new_empty(b, m)
    coefficients = _erfcx_coefficients(vectors.device)
    kinds, parameters = 0, []
    for q, kernel in enumerate(kernels):
        kind = _kind(kernel)
        if kind is None:
            return None
        kinds += kind << (4 * q)
        # The Gaussian's factor in the slope of a power, or alpha.
        if isinstance(kernel, PowerKernel):
            parameter = 2 / math.gamma(kernel.p) * eta**kernel.p
        else:
            parameter = torch.as_tensor(kernel.alpha, dtype=eta.dtype, device=eta.device)  # type: ignore[attr-defined]
            parameter = parameter.detach().expand_as(eta)
        parameters.append(parameter)
    try:
        _sum_images[(b * m, len(kernels))](
            vectors,
            translations,
            counts,
            sums,
            eta.contiguous(),
            cutoff.square(),
            torch.stack(parameters),
            coefficients,
            found,
            nearest2,
            b,
            m,
            translations.shape[1],
            KINDS=kinds,
            COUNT=len(kernels),
            DEGREE=_DEGREE,
            SCALE=_SCALE,
            BLOCK=_BLOCK,
            SINGLE=single,
        )
    except Exception as error:  # a compiler may fail in any way
        _failed = True
        warnings.warn(
            f"the Triton kernel does not run here ({type(error).__name__}: {error}); torch is used",
            stacklevel=2,
        )
        return None
    return found.permute(1, 2, 0, 3), nearest2


@functools.lru_cache(maxsize=8)
def _erfcx_coefficients(device: torch.device) -> Tensor:
    """Chebyshev coefficients of erfcx(x) (x + s) / s on x >= 0 in t = (x - s) / (x + s), and 2 / sqrt(pi)."""
    count = 64
    angle = math.pi * (torch.arange(count, dtype=torch.float64) + 0.5) / count
    t = angle.cos()
    x = _SCALE * (1 + t) / (1 - t)
    # torch's erfcx overflows nowhere here; towards x = inf the product tends to 1 / (s sqrt(pi)).
    values = torch.special.erfcx(x) * (x + _SCALE) / _SCALE
    order = torch.arange(_DEGREE, dtype=torch.float64)[:, None]
    coefficients = 2 / count * ((order * angle).cos() * values).sum(1)
    coefficients[0] *= 0.5
    # Numbers written in a Triton program may be rounded to float32; 2 / sqrt(pi) is passed along instead.
    return torch.cat([coefficients, coefficients.new_tensor([2 / math.sqrt(math.pi)])]).to(device)


if triton is not None:

    @triton.jit
    def _erfc(x, coefficients, DEGREE: tl.constexpr, SCALE: tl.constexpr):  # type: ignore[no-untyped-def]
        size = tl.abs(x)
        t = (size - SCALE) / (size + SCALE)
        after = tl.zeros_like(x)
        last = tl.zeros_like(x)
        for i in range(DEGREE - 1):  # Clenshaw
            now = 2 * t * last - after + tl.load(coefficients + DEGREE - 1 - i).to(x.dtype)
            after = last
            last = now
        scaled = (t * last - after + tl.load(coefficients).to(x.dtype)) * SCALE / (size + SCALE)
        value = scaled * tl.exp(-size * size)
        return tl.where(x < 0, 2 - value, value)

    @triton.jit
    def _sum_images(  # type: ignore[no-untyped-def]
        vectors,
        translations,
        counts,
        sums,
        etas,
        cutoffs2,
        parameters,
        coefficients,
        found,
        nearest2,
        num_crystals,
        m,
        num_images,
        KINDS: tl.constexpr,
        COUNT: tl.constexpr,
        DEGREE: tl.constexpr,
        SCALE: tl.constexpr,
        BLOCK: tl.constexpr,
        SINGLE: tl.constexpr,
    ):
        place = tl.program_id(1).to(tl.int64)
        for q in tl.static_range(COUNT):
            if place == q:
                _sum_images_of(
                    vectors,
                    translations,
                    counts,
                    sums,
                    etas,
                    cutoffs2,
                    parameters + place * num_crystals,
                    coefficients,
                    found + 10 * place * num_crystals * m,
                    nearest2,
                    m,
                    num_images,
                    (KINDS >> (4 * q)) % 16,
                    DEGREE,
                    SCALE,
                    BLOCK,
                    SINGLE,
                )

    @triton.jit
    def _sum_images_of(  # type: ignore[no-untyped-def]
        vectors,
        translations,
        counts,
        sums,
        etas,
        cutoffs2,
        parameters,
        coefficients,
        found,
        nearest2,
        m,
        num_images,
        KIND: tl.constexpr,
        DEGREE: tl.constexpr,
        SCALE: tl.constexpr,
        BLOCK: tl.constexpr,
        SINGLE: tl.constexpr,
    ):
        row = tl.program_id(0).to(tl.int64)
        crystal = row // m
        itself = row % m == 0
        vx = tl.load(vectors + 3 * row)
        vy = tl.load(vectors + 3 * row + 1)
        vz = tl.load(vectors + 3 * row + 2)
        eta = tl.load(etas + crystal)
        cutoff2 = tl.load(cutoffs2 + crystal)
        parameter = tl.load(parameters + crystal)
        summed = tl.load(sums + row) != 0
        factor = tl.load(coefficients + DEGREE)
        largest = 700.0
        if SINGLE:
            eta = eta.to(tl.float32)
            parameter = parameter.to(tl.float32)
            factor = factor.to(tl.float32)
            largest = 80.0
        lane = tl.arange(0, BLOCK)
        zero = tl.zeros([BLOCK], dtype=tl.float64)
        total, x1, y1, z1 = zero, zero, zero, zero
        xx, yy, zz, yz, xz, xy = zero, zero, zero, zero, zero, zero
        smallest = zero + float("inf")
        for start in range(0, num_images, BLOCK):
            image = start + lane
            inside = image < num_images
            at = translations + 3 * (crystal * num_images + image)
            tx = tl.load(at, mask=inside, other=0.0)
            ty = tl.load(at + 1, mask=inside, other=0.0)
            tz = tl.load(at + 2, mask=inside, other=0.0)
            listed = tl.load(counts + crystal * num_images + image, mask=inside, other=0) != 0
            sx = vx + tx
            sy = vy + ty
            sz = vz + tz
            r2 = sx * sx + sy * sy + sz * sz
            home = itself & (tx * tx + ty * ty + tz * tz == 0.0)
            term = listed & summed & (r2 <= cutoff2) & (home == 0)
            smallest = tl.minimum(smallest, tl.where(term, r2, float("inf")))
            r2 = tl.where(term, r2, cutoff2)
            if SINGLE:
                r2 = r2.to(tl.float32)
            r = tl.sqrt(r2)
            x = eta * r2
            gauss = tl.exp(-x)
            if KIND == 0:
                root = tl.sqrt(eta)
                shift = parameter / (2 * root)
                shrunk = tl.exp(-parameter * r) * _erfc(root * r - shift, coefficients, DEGREE, SCALE)
                grown = tl.exp(tl.minimum(parameter * r, largest))
                grown = grown * _erfc(root * r + shift, coefficients, DEGREE, SCALE)
                value = 0.5 * (shrunk - grown)
                slope = -0.5 * parameter * (shrunk + grown) / r
            else:
                if KIND % 2 == 0:
                    part = gauss
                    value = gauss
                    for k in tl.static_range(1, KIND // 2):
                        part = part * x / k
                        value = value + part
                    for _ in tl.static_range(0, KIND // 2):
                        value = value / r2
                else:
                    part = gauss * factor * tl.sqrt(x)
                    value = _erfc(tl.sqrt(x), coefficients, DEGREE, SCALE)
                    for j in tl.static_range(0, KIND // 2):
                        value = value + part
                        part = part * x / (j + 1.5)
                    value = value / r
                    for _ in tl.static_range(0, KIND // 2):
                        value = value / r2
                slope = -(KIND * value + parameter * gauss) / r2
            value = tl.where(term, value, 0.0)
            slope = tl.where(term, slope, 0.0)
            total += value
            x1 += slope * sx
            y1 += slope * sy
            z1 += slope * sz
            xx += slope * sx * sx
            yy += slope * sy * sy
            zz += slope * sz * sz
            yz += slope * sy * sz
            xz += slope * sx * sz
            xy += slope * sx * sy
        out = found + 10 * row
        tl.store(out, tl.sum(total, 0))
        tl.store(out + 1, tl.sum(x1, 0))
        tl.store(out + 2, tl.sum(y1, 0))
        tl.store(out + 3, tl.sum(z1, 0))
        tl.store(out + 4, tl.sum(xx, 0))
        tl.store(out + 5, tl.sum(yy, 0))
        tl.store(out + 6, tl.sum(zz, 0))
        tl.store(out + 7, tl.sum(yz, 0))
        tl.store(out + 8, tl.sum(xz, 0))
        tl.store(out + 9, tl.sum(xy, 0))
        tl.store(nearest2 + row, tl.min(smallest, 0))
