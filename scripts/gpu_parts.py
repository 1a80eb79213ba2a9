"""The parts of an update, one by one: part of gpu_check.py.

On a CUDA device each is timed by replaying a graph of it, so that launching does not count. A part
that fails is reported, and the rest go on.

Legend: P target tokens of an update, D width, V vocabulary, H heads, K head width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from bench.harness import table, table_row
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from mt.runtime import torch_private
from mt.training import losses

REPLAYS = 20
BACKENDS = {
    "cuDNN": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION, "plain": SDPBackend.MATH,
}  # fmt: skip
Figures = dict[str, float]
"""Milliseconds by name."""


def time_replayed(work: Callable[[], object], device: torch.device) -> float:
    """Return the milliseconds of one run, the median of several."""
    if device.type != "cuda":
        work()
        return min(_time_plain(work) for _ in range(3))
    stream: Any = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        work()
    took = []
    for _ in range(REPLAYS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        took.append(begin.elapsed_time(end))
    return median(took[2:])


def _time_plain(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


class Report:
    """Prints a table of parts and keeps their milliseconds."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.figures = device, Figures()
        print("\n" + table("part | ms | "))

    def time(
        self, what: str, work: Callable[[], object], note: Callable[[float], str] = lambda _: ""
    ) -> None:
        """Time a part; report a failure in place of its time."""
        try:
            ms = time_replayed(work, self.device)
        except Exception as error:
            first = (str(error).splitlines() or [""])[0][:90]
            print(table_row((what, "failed", f"{type(error).__name__}: {first}")), flush=True)
            return
        self.figures[what] = ms
        print(table_row((what, f"{ms:.4f}", note(ms))), flush=True)

    def time_both(
        self, what: str, function: Callable[..., Tensor], *inputs: Tensor,
        note: Callable[[float], str] = lambda _: "",
    ) -> None:  # fmt: skip
        """Time forward and backward together."""
        leaves = [each for each in inputs if each.requires_grad]

        def work() -> object:
            result = function(*inputs)
            return torch.autograd.grad(result, leaves, torch.ones_like(result))

        self.time(what, work, note)


def measure_peak(device: torch.device, size: int = 8192) -> float:
    """Return the TFLOP/s of a large product in bf16."""
    size = size if device.type == "cuda" else 256
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / time_replayed(lambda: a @ b.t(), device) / 1e9


def measure(sizes: tuple[Any, ...], device: torch.device, quick: bool) -> Figures:
    """Measure the parts of an update of a model; return their milliseconds."""
    width, heads, inner, layers, vocabulary, dropout, tokens = sizes
    report = Report(device)
    measure_ceilings(report, width, inner, vocabulary, tokens, quick)
    measure_attention(report, width, heads, dropout, tokens)
    measure_plans(width, heads, device)
    measure_loss(report, width, vocabulary, tokens)
    measure_tail(report, width, inner, layers, vocabulary)
    return report.figures


def measure_ceilings(
    report: Report, width: int, inner: int, vocabulary: int, tokens: int, quick: bool
) -> None:
    """Measure a copy, and the products of the model's own sizes."""
    device = report.device
    x = torch.empty(1 << (20 if quick else 30), dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    report.time("copy", lambda: y.copy_(x), lambda ms: f"{2 * x.numel() / ms / 1e9:.2f} TB/s")
    products = [
        (tokens, width, width), (tokens, 3 * width, width), (tokens, inner, width),
        (tokens, width, inner), (tokens, vocabulary, width), (vocabulary, width, tokens),
        (width, width, tokens),
    ]  # fmt: skip
    for rows, columns, depth in products:
        a, b = (torch.randn(n, depth, device=device, dtype=torch.bfloat16) for n in (rows, columns))
        flops = 2 * rows * columns * depth
        report.time(
            f"product {rows} x {columns} x {depth}", lambda a=a, b=b: a @ b.t(),
            lambda ms, flops=flops: f"{flops / ms / 1e9:.0f} TFLOP/s",
        )  # fmt: skip


def measure_attention(report: Report, width: int, heads: int, dropout: float, tokens: int) -> None:
    """Measure the attention of sentences of a few lengths, by each kernel that torch has."""
    dtype = torch.bfloat16 if report.device.type == "cuda" else torch.float32
    for length in (16, 28, 64):
        rows = max(1, tokens // length)
        shape = (rows, heads, length, width // heads)
        q, k, v = (
            torch.randn(shape, device=report.device, dtype=dtype, requires_grad=True)
            for _ in range(3)
        )
        mask = torch.ones(rows, 1, 1, length, dtype=torch.bool, device=report.device)
        mask[::2, ..., length * 3 // 4 :] = False
        for name, backend in BACKENDS.items():
            if name != "plain" and report.device.type != "cuda":
                continue
            for causal in (False, True):

                def attend(
                    q: Tensor, k: Tensor, v: Tensor, backend: SDPBackend = backend,
                    causal: bool = causal, mask: Tensor = mask,
                ) -> Tensor:  # fmt: skip
                    with sdpa_kernel([backend]):
                        return F.scaled_dot_product_attention(
                            q, k, v, None if causal else mask, dropout, causal
                        )

                kind = "causal" if causal else "padding mask"
                what = f"attention {rows} x {length}, {name}, {kind}, both passes"
                report.time_both(what, attend, q, k, v)
    if hasattr(torch.ops.aten, "_efficient_attention_forward") and report.device.type == "cuda":
        measure_packed_attention(report, width, heads, dropout, tokens)


def measure_packed_attention(
    report: Report, width: int, heads: int, dropout: float, tokens: int, length: int = 27
) -> None:
    """Measure attention without padding: P tokens [P, H, K], sentences by their starts."""
    starts = torch.arange(0, tokens + 1, length, device=report.device, dtype=torch.int32)
    q, k, v = (
        torch.randn(
            int(starts[-1]), heads, width // heads, device=report.device, dtype=torch.bfloat16,
            requires_grad=True,
        )
        for _ in range(3)
    )  # fmt: skip
    aten = torch.ops.aten
    for longest in (32, 128):
        report.time_both(
            f"packed attention, efficient, longest {longest}, both passes",
            lambda q, k, v, longest=longest: aten._efficient_attention_forward(
                q[None], k[None], v[None], None, starts, starts, longest, longest, dropout, 0, True
            )[0][0],
            q, k, v,
        )  # fmt: skip
        report.time_both(
            f"packed attention, flash, longest {longest}, both passes",
            lambda q, k, v, longest=longest: aten._flash_attention_forward(
                q, k, v, starts, starts, longest, longest, 0.0, False, False
            )[0],
            q, k, v,
        )  # fmt: skip


def measure_plans(width: int, heads: int, device: torch.device) -> None:
    """Print what the first call of a new shape costs: cuDNN plans, others do not."""
    if device.type != "cuda":
        return
    for name in ("cuDNN", "efficient"):
        took = []
        for length in (20, 21, 23, 25, 29):
            shape = (400, heads, length, width // heads)
            q, k, v = (
                torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True)
                for _ in range(3)
            )
            torch.cuda.synchronize()
            began = time.perf_counter()
            with sdpa_kernel([BACKENDS[name]]):
                F.scaled_dot_product_attention(q, k, v).sum().backward()
            torch.cuda.synchronize()
            took.append(f"{1000 * (time.perf_counter() - began):.0f}")
        print(table_row((f"first calls of {name}, both passes", "", f"{', '.join(took)} ms")))


def measure_loss(report: Report, width: int, vocabulary: int, tokens: int) -> None:
    """Measure the loss with several numbers of rows at a time."""
    hidden = torch.randn(tokens, width, device=report.device, requires_grad=True)
    weight = torch.randn(vocabulary, width, device=report.device, requires_grad=True)
    labels = torch.randint(4, vocabulary, (tokens,), device=report.device)

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        with torch.autocast(report.device.type, torch.bfloat16):
            return losses.linear_cross_entropy(hidden, weight, None, labels, 0.1, 0)

    before = losses.DEVICE_CHUNKS
    try:
        for chunks in (8, 32, 64) if report.device.type == "cuda" else (1,):
            losses.DEVICE_CHUNKS = chunks
            report.time_both(f"loss, {chunks * losses.CHUNK} rows at a time", loss, hidden, weight)
    finally:
        losses.DEVICE_CHUNKS = before


def measure_tail(report: Report, width: int, inner: int, layers: int, vocabulary: int) -> None:
    """Measure what follows the gradients: norm, AdamW, moving average."""
    device = report.device
    layer = [
        (3 * width, width), (3 * width,), (width, width), (width,), (inner, width), (inner,),
        (width, inner), (width,), (width,), (width,),
    ]  # fmt: skip
    shapes = [(vocabulary, width), *layer * (3 * layers)]
    weights = [(torch.randn(*s, device=device) * 0.02).requires_grad_() for s in shapes]
    for each in weights:
        each.grad = torch.randn_like(each)
    average = [each.detach().clone() for each in weights]
    ends, share = [each.detach() for each in weights], torch.tensor(0.01, device=device)
    names = f"{len(weights)} tensors, {sum(each.numel() for each in weights) / 1e6:.0f} M"
    gradients = [each.grad for each in weights]
    report.time(f"norm of {names}", lambda: torch.nn.utils.get_total_norm(gradients, foreach=True))
    report.time("average, fused", lambda: torch_private.lerp_all_fused(average, ends, share))
    report.time(
        "average, a kernel each",
        lambda: [a.lerp_(b, share) for a, b in zip(average, ends, strict=True)],
    )
    cuda = device.type == "cuda"
    rate = torch.tensor(1e-4, device=device) if cuda else 1e-4
    optimizer = torch.optim.AdamW(weights, lr=rate, fused=True, capturable=cuda)
    report.time("AdamW, fused", optimizer.step)
    flat = torch.randn(sum(each.numel() for each in weights), device=device)
    report.time("norm of one flat tensor", lambda: torch.linalg.vector_norm(flat))
