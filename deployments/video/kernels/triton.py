"""The Triton kernels behind ``fused``.

Sums and norms are computed in float32. A program handles one row or a few pixels; ``at`` holds
offsets in elements. Arguments that depend on the size of the video are not specialised, so a new
size compiles nothing.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["tokens"])
def residual_norm(
    x,
    delta,
    gate,
    scale,
    shift,
    total,
    normed,
    tokens,
    width: tl.constexpr,
    gate_stride: tl.constexpr,
    scale_stride: tl.constexpr,
    shift_stride: tl.constexpr,
    epsilon,
    ADD: tl.constexpr,
    GATED: tl.constexpr,
    NORM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    sample = row // tokens
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    value = tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        change = tl.load(delta + row * width + columns, mask=inside, other=0.0).to(tl.float32)
        if GATED:
            change *= tl.load(gate + sample * gate_stride + columns, mask=inside, other=0.0).to(tl.float32)
        rounded = (value + change).to(total.dtype.element_ty)
        tl.store(total + row * width + columns, rounded, mask=inside)
        value = rounded.to(tl.float32)
    if NORM:
        centred = tl.where(inside, value - tl.sum(value) / width, 0.0)
        unit = centred / tl.sqrt(tl.sum(centred * centred) / width + epsilon)
        factor = tl.load(scale + sample * scale_stride + columns, mask=inside, other=0.0).to(tl.float32)
        offset = tl.load(shift + sample * shift_stride + columns, mask=inside, other=0.0).to(tl.float32)
        tl.store(normed + row * width + columns, (unit * factor + offset).to(normed.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["tokens"])
def norm_rotate(
    x,
    weight,
    cosines,
    sines,
    tokens,
    width: tl.constexpr,
    epsilon,
    HEAD: tl.constexpr,
    ROTATE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    value = tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    unit = value / tl.sqrt(tl.sum(value * value) / width + epsilon)
    unit *= tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    if ROTATE:
        pairs = tl.arange(0, BLOCK // 2)
        at = (row % tokens) * HEAD + pairs % (HEAD // 2) * 2
        cosine = tl.load(cosines + at)
        sine = tl.load(sines + at)
        one, other = tl.split(tl.reshape(unit, (BLOCK // 2, 2)))
        unit = tl.interleave(one * cosine - other * sine, one * sine + other * cosine)
    tl.store(x + row * width + columns, unit.to(x.dtype.element_ty), mask=inside)


@triton.jit
def activate(value, gain, columns, channels):
    length = tl.maximum(tl.sqrt(tl.sum(value * value, 1)), 1e-12)
    value = value / length[:, None] * tl.load(gain + columns, mask=columns < channels, other=0.0)[None, :]
    return value * tl.sigmoid(value)


@triton.jit(do_not_specialize=["pixels"])
def norm_silu(x, gain, result, pixels, channels: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    inside = (rows[:, None] < pixels) & (columns[None, :] < channels)
    at = rows[:, None] * channels + columns[None, :]
    value = activate(tl.load(x + at, mask=inside, other=0.0).to(tl.float32), gain, columns, channels)
    tl.store(result + at, value.to(result.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["count", "pixels"])
def unfold_time(
    x,
    before,
    gain,
    bias,
    unfolded,
    last,
    count,
    pixels,
    channels: tl.constexpr,
    BEFORE: tl.constexpr,
    NORM: tl.constexpr,
    BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    frame = tl.program_id(1) - 2
    columns = tl.arange(0, BLOCK)
    inside = (rows[:, None] < pixels) & (columns[None, :] < channels)
    at = rows[:, None] * channels + columns[None, :]
    size = pixels.to(tl.int64) * channels
    if frame >= 0:
        value = tl.load(x + frame * size + at, mask=inside, other=0.0).to(tl.float32)
        if BIAS:
            value += tl.load(bias + columns, mask=columns < channels, other=0.0).to(tl.float32)[None, :]
            value = value.to(x.dtype.element_ty).to(tl.float32)
        if NORM:
            value = activate(value, gain, columns, channels)
    elif BEFORE:
        value = tl.load(before + (frame + 2) * size + at, mask=inside, other=0.0).to(tl.float32)
    else:
        value = tl.zeros((ROWS, BLOCK), tl.float32)
    rounded = value.to(unfolded.dtype.element_ty)
    for place in tl.static_range(3):
        target = frame + 2 - place
        if (target >= 0) & (target < count):
            there = (target * pixels.to(tl.int64) + rows[:, None]) * (3 * channels) + place * channels + columns[None, :]
            tl.store(unfolded + there, rounded, mask=inside)
    if frame >= count - 2:
        tl.store(last + (frame - count + 2) * size + at, rounded, mask=inside)


@triton.jit(do_not_specialize=["pixels"])
def add(x, bias, other, pixels, channels: tl.constexpr, OTHER: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    inside = (rows[:, None] < pixels) & (columns[None, :] < channels)
    at = rows[:, None] * channels + columns[None, :]
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + columns, mask=columns < channels, other=0.0).to(tl.float32)[None, :]
    if OTHER:
        value += tl.load(other + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(x + at, value.to(x.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["height", "width", "times"])
def enlarge(
    x,
    bias,
    result,
    height,
    width,
    times,
    channels: tl.constexpr,
    BIAS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    frame = tl.program_id(1).to(tl.int64)
    part = frame % times
    columns = tl.arange(0, BLOCK)
    inside = (pixel[:, None] < height * width) & (columns[None, :] < channels)
    source = ((frame // times * height * width + pixel) * times + part) * channels
    value = tl.load(x + source[:, None] + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    if BIAS:
        at = part * channels + columns
        value += tl.load(bias + at, mask=columns < channels, other=0.0).to(tl.float32)[None, :]
    rounded = value.to(result.dtype.element_ty)
    row = frame * 2 * height + pixel // width * 2
    for down in tl.static_range(2):
        for right in tl.static_range(2):
            target = ((row + down) * 2 * width + pixel % width * 2 + right) * channels
            tl.store(result + target[:, None] + columns[None, :], rounded, mask=inside)


@triton.jit
def quantise_rows(
    x, quantised, scales, width: tl.constexpr, MAX: tl.constexpr, MIN_ROW_MAXIMUM: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    value = tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(value)), MIN_ROW_MAXIMUM) / MAX
    tl.store(quantised + row * width + columns, (value / scale).to(quantised.dtype.element_ty), mask=inside)
    tl.store(scales + row, scale)
