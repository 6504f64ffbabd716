"""The other side of the kernel benchmark: one layer's three products in PyTorch, masked-dense and by torch.sparse's CSR.

Speaks lines of JSON: reads a layer from standard input and answers with milliseconds. What a mask would cost and how a
sparse matrix is made out of its weights is not counted: both are spared it.
"""
import json
import sys
import time

import torch
import torch.nn.functional as F

PASSES = ["forward", "inputGradient", "weightGradient"]


def synchronise(device):
    if device != "cpu":
        torch.cuda.synchronize()


def timed(work, rounds, sample, device):
    """Milliseconds of `work`, one a round: the mean over a sample of at least so many seconds."""
    work()
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    once = time.perf_counter() - start
    repeats = max(1, min(100000, int(sample / max(once, 1e-7)) + 1))
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        synchronise(device)
        times.append((time.perf_counter() - start) / repeats * 1e3)
    return times


def dense_products(q, device, dtype, weight):
    """By layout: the three products as functions."""
    n = q["batch"]
    if q["type"] == "linear":
        x = torch.randn(n, q["shape"][1], device=device, dtype=dtype)
        dy = torch.randn(n, q["shape"][0], device=device, dtype=dtype)
        w = weight.to(dtype)
        return {"rows": [lambda: F.linear(x, w), lambda: dy @ w, lambda: dy.t() @ x]}
    found = {}
    for layout, form in [("nchw", torch.contiguous_format), ("nhwc", torch.channels_last)]:
        x = torch.randn(n, *q["input"], device=device, dtype=dtype).to(memory_format=form)
        dy = torch.randn(n, *q["output"], device=device, dtype=dtype).to(memory_format=form)
        w = weight.to(dtype).to(memory_format=form)

        def back(mask, x=x, dy=dy, w=w):
            return lambda: torch.ops.aten.convolution_backward(
                dy, x, w, None, q["stride"], q["padding"], [1, 1], False, [0, 0], 1, mask)

        found[layout] = [
            lambda x=x, w=w: F.conv2d(x, w, None, q["stride"], q["padding"]),
            back([True, False, False]),
            back([False, True, False]),
        ]
    return found


def sparse_products(q, device, weight):
    """In fp32: a convolution is a product with its unfolded input, whose unfolding and folding count."""
    n = q["batch"]
    matrix = weight.reshape(q["shape"][0], -1)
    csr, turned = matrix.to_sparse_csr(), matrix.t().contiguous().to_sparse_csr()
    if q["type"] == "linear":
        x = torch.randn(q["shape"][1], n, device=device)
        dy = torch.randn(q["shape"][0], n, device=device)
        xt = x.t().contiguous()
        return [lambda: csr @ x, lambda: turned @ dy, lambda: torch.sparse.sampled_addmm(csr, dy, xt, beta=0.0)]
    kernel = q["shape"][2:]
    x = torch.randn(n, *q["input"], device=device)
    dy = torch.randn(n, *q["output"], device=device)

    def unfolded():
        columns = F.unfold(x, kernel, padding=q["padding"], stride=q["stride"])  # (N, C*R*S, places)
        return columns.transpose(0, 1).reshape(columns.shape[1], -1)

    def of_dy():
        return dy.flatten(2).transpose(0, 1).reshape(q["shape"][0], -1)

    def forward():
        return (csr @ unfolded()).reshape(q["shape"][0], n, -1).transpose(0, 1).contiguous()

    def input_gradient():
        columns = (turned @ of_dy()).reshape(matrix.shape[1], n, -1).transpose(0, 1)
        return F.fold(columns, q["input"][1:], kernel, padding=q["padding"], stride=q["stride"])

    def weight_gradient():
        return torch.sparse.sampled_addmm(csr, of_dy(), unfolded().t().contiguous(), beta=0.0)

    return [forward, input_gradient, weight_gradient]


def answer(q, device):
    weight = torch.randn(*q["shape"], device=device)
    weight *= torch.rand(q["shape"], device=device) < q["density"]
    dtype = torch.bfloat16 if q["precision"] == "bf16" else torch.float32
    wanted = [True, q["inputGradient"], True]
    dense, sparse, problems = {}, {}, {}
    layouts = dense_products(q, device, dtype, weight)
    for i, name in enumerate(PASSES):
        dense[name] = None
        if wanted[i]:
            times = {layout: timed(works[i], q["rounds"], q["sample"], device) for layout, works in layouts.items()}
            best = min(times, key=lambda layout: sorted(times[layout])[len(times[layout]) // 2])
            dense[name] = {"ms": times[best], "layout": best}
    for i, name in enumerate(PASSES):
        sparse[name] = None
        if wanted[i] and q["density"] < 1:
            try:
                work = sparse_products(q, device, weight)[i]
                sparse[name] = {"ms": timed(work, min(q["rounds"], 3), q["sample"], device)}  # some take seconds
            except Exception as error:  # torch.sparse has not every product everywhere
                problems[name] = str(error).split("\n")[0][:200]
    return {"dense": dense, "sparse": sparse, "problems": problems}


def limits(device, size=8192, elements=1 << 28):
    """Of the device: operations and bytes a second, the best of some tries."""
    found = {}
    for name, dtype in [("fp32", torch.float32), ("bf16", torch.bfloat16)]:
        a = torch.randn(size, size, device=device, dtype=dtype)
        found[name] = 2 * size**3 / (min(timed(lambda: a @ a, 5, 0.02, device)) / 1e3)
    x = torch.randn(elements, device=device)
    y = torch.empty_like(x)
    found["bandwidth"] = 2 * x.nbytes / (min(timed(lambda: y.copy_(x), 5, 0.02, device)) / 1e3)
    return found


def main():
    options = json.loads(sys.argv[1])
    device = options["device"]
    torch.set_num_threads(options["threads"])
    torch.manual_seed(0)
    # fp32 as lth-train has it.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    if device != "cpu":
        torch.cuda.set_device(torch.device(device).index or 0)
    import warnings

    warnings.filterwarnings("ignore", message=".*Sparse CSR tensor support is in beta.*")
    print(json.dumps({"torch": torch.__version__}), flush=True)
    with torch.no_grad():
        for line in sys.stdin:
            q = json.loads(line)
            print(json.dumps(limits(device) if q.get("limits") else answer(q, device)), flush=True)


if __name__ == "__main__":
    main()
