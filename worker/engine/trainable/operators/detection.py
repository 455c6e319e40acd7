"""What detectors are made of: boxes, regions of interest, convolutions that look elsewhere."""

import torch
from torch.nn import functional

from worker.engine.trainable.registry import Call, numbers, operator


@operator("NonMaxSuppression", host=(2, 3, 4))
def non_max_suppression(
    call: Call,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    most: torch.Tensor | None = None,
    overlap: torch.Tensor | None = None,
    least: torch.Tensor | None = None,
) -> torch.Tensor:
    """`boxes` (N, boxes, 4), `scores` (N, classes, boxes) -> (found, 3) int64: sample, class, box. No gradient."""
    limit = int((numbers(most) or [0])[0])
    threshold, floor = (numbers(overlap) or [0.0])[0], numbers(least)
    corners = _corners(boxes.detach(), bool(call.get("center_point_box", 0)))
    found: list[list[int]] = []
    for sample in range(scores.shape[0]):
        for kind in range(scores.shape[1]):
            chosen = _suppressed(corners[sample], scores.detach()[sample, kind], limit, threshold, floor)
            found.extend([sample, kind, box] for box in chosen)
    return torch.tensor(found, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _corners(boxes: torch.Tensor, centred: bool) -> torch.Tensor:
    """As (least y, least x, greatest y, greatest x), or of x and y: the overlap is the same."""
    first, second = boxes[..., :2], boxes[..., 2:]
    if centred:
        first, second = first - second / 2, first + second / 2
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=-1)


def _suppressed(
    boxes: torch.Tensor, scores: torch.Tensor, limit: int, threshold: float, floor: list[float] | None
) -> list[int]:
    order = torch.argsort(scores, descending=True, stable=True)
    if floor:
        order = order[scores[order] > floor[0]]
    chosen: list[int] = []
    while len(order) and len(chosen) < limit:
        best, order = order[0], order[1:]
        chosen.append(int(best))
        order = order[_overlap(boxes[best], boxes[order]) <= threshold]
    return chosen


def _overlap(box: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Intersection over union of one box with others; of boxes without area, none."""
    sides = (torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])).clamp(min=0)
    shared = sides.prod(dim=1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(dim=1) - shared
    return torch.where(union > 0, shared / union.clamp(min=torch.finfo(union.dtype).tiny), torch.zeros_like(union))


@operator("RoiAlign", until=15)
def roi_align_of_old(call: Call, x: torch.Tensor, rois: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
    return _roi_align(call, x, rois, samples, call.get("coordinate_transformation_mode", "output_half_pixel"))


@operator("RoiAlign", since=16)
def roi_align(call: Call, x: torch.Tensor, rois: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
    return _roi_align(call, x, rois, samples, call.get("coordinate_transformation_mode", "half_pixel"))


def _roi_align(call: Call, x: torch.Tensor, rois: torch.Tensor, samples: torch.Tensor, rule: str) -> torch.Tensor:
    """`x` (N, C, H, W), `rois` (R, 4) as x1, y1, x2, y2, `samples` (R) -> (R, C, height, width)."""
    height, width = call.get("output_height", 1), call.get("output_width", 1)
    scale, ratio = call.get("spatial_scale", 1.0), call.get("sampling_ratio", 0)
    half = rule == "half_pixel"
    boxes = rois * scale - (0.5 if half else 0.0)
    sides = boxes[:, 2:] - boxes[:, :2]
    sides = sides if half else sides.clamp(min=1.0)
    made = []
    for box, side, sample in zip(boxes, sides, samples.tolist(), strict=True):
        counts = [
            ratio if ratio > 0 else int(torch.ceil(side[axis] / bins)) for axis, bins in ((1, height), (0, width))
        ]
        places = [
            box[axis] + (torch.arange(bins * count, device=x.device) + 0.5) * side[axis] / (bins * count)
            for axis, bins, count in ((1, height, counts[0]), (0, width, counts[1]))
        ]
        made.append(_binned(call, x[sample], places, height, width))
    return torch.stack(made) if made else x.new_zeros(0, x.shape[1], height, width)


def _binned(call: Call, image: torch.Tensor, places: list[torch.Tensor], height: int, width: int) -> torch.Tensor:
    """The mean over the samples of each bin, or, as ONNX has it, the greatest weighted corner of any."""
    rows, columns = (_corner_weights(one, size) for one, size in zip(places, image.shape[1:], strict=True))
    shape = (image.shape[0], height, -1, width, len(places[1]) // max(1, width))
    parts = [
        image[:, row][:, :, column] * (row_weight.unsqueeze(1) * column_weight)
        for row, row_weight in rows
        for column, column_weight in columns
    ]
    if call.get("mode", "avg") == "avg":
        return torch.stack(parts).sum(dim=0).reshape(shape).mean(dim=(2, 4))
    return torch.stack(parts).amax(dim=0).reshape(shape).amax(dim=(2, 4))


def _corner_weights(places: torch.Tensor, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Index and weight of the element before each place and of the one behind it; nothing outside the image."""
    inside = (places >= -1) & (places <= size)
    held = places.clamp(0, size - 1)
    low = held.floor().to(torch.int64)
    high = (low + 1).clamp(max=size - 1)
    share = held - low
    return [(low, (1 - share) * inside), (high, share * inside)]


@operator("MaxRoiPool")
def max_roi_pool(call: Call, x: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
    """`rois` (R, 5): sample, x1, y1, x2, y2, rounded to elements -> (R, C, height, width)."""
    height, width = call.integers("pooled_shape") or [1, 1]
    scale = call.get("spatial_scale", 1.0)
    made = []
    for sample, *box in rois.tolist():
        left, top, right, bottom = (int(torch.round(torch.tensor(one * scale))) for one in box)
        rows = _bins(top, bottom, height, x.shape[2])
        columns = _bins(left, right, width, x.shape[3])
        cells = [[_cell_max(x[int(sample)], row, column) for column in columns] for row in rows]
        made.append(torch.stack([torch.stack(one, dim=-1) for one in cells], dim=-2))
    return torch.stack(made) if made else x.new_zeros(0, x.shape[1], height, width)


def _bins(first: int, last: int, count: int, size: int) -> list[slice]:
    """Equal parts of [first, last], each widened to whole elements, within the image."""
    step = max(last - first + 1, 1) / count
    return [
        slice(min(max(int(one * step) + first, 0), size), min(max(-int(-(one + 1) * step // 1) + first, 0), size))
        for one in range(count)
    ]


def _cell_max(image: torch.Tensor, rows: slice, columns: slice) -> torch.Tensor:
    part = image[:, rows, columns]
    return part.amax(dim=(1, 2)) if part.numel() else image.new_zeros(image.shape[0])


@operator("DeformConv")
def deform_conv(
    call: Call,
    x: torch.Tensor,
    weight: torch.Tensor,
    offset: torch.Tensor,
    bias: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """A convolution each of whose taps reads bilinearly, `offset` away from its place, weighted by `mask`."""
    n, channels, rows, columns = x.shape
    taps, groups, parts = weight.shape[2] * weight.shape[3], call.get("group", 1), call.get("offset_group", 1)
    height, width = offset.shape[2:]
    places = _tap_places(call, weight, height, width).to(x.device)
    moved = offset.reshape(n, parts, taps, 2, height, width) + places.unsqueeze(0).unsqueeze(0)
    span = torch.tensor([max(rows - 1, 1), max(columns - 1, 1)], dtype=x.dtype, device=x.device)
    grid = (moved * 2 / span.reshape(2, 1, 1) - 1).flip(3).movedim(3, -1)
    grid = grid.reshape(n * parts, taps * height, width, 2)
    image = x.reshape(n * parts, channels // parts, rows, columns)
    read = functional.grid_sample(image, grid, "bilinear", "zeros", True)
    read = read.reshape(n, parts, channels // parts, taps, height * width)
    if mask is not None:
        read = read * mask.reshape(n, parts, 1, taps, height * width)
    read = read.reshape(n, groups, -1, height * width)
    made = weight.reshape(groups, weight.shape[0] // groups, -1) @ read
    made = made.reshape(n, weight.shape[0], height, width)
    return made if bias is None else made + bias.reshape(1, -1, 1, 1)


def _tap_places(call: Call, weight: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(taps, 2, height, width): row and column that each tap reads for each output element, without offsets."""
    strides, dilations = call.integers("strides") or [1, 1], call.integers("dilations") or [1, 1]
    pads = call.integers("pads") or [0, 0, 0, 0]
    along = [
        (torch.arange(kernel) * dilations[axis]).unsqueeze(1) + torch.arange(count) * strides[axis] - pads[axis]
        for axis, (kernel, count) in enumerate(zip(weight.shape[2:], (height, width), strict=True))
    ]
    shape = (weight.shape[2], weight.shape[3], height, width)
    row = along[0][:, None, :, None].expand(shape)
    column = along[1][None, :, None, :].expand(shape)
    return torch.stack([row, column], dim=2).reshape(-1, 2, height, width).to(weight.dtype)
