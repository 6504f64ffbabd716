"""The other side of the step benchmark: PyTorch's best ways to make one training step.

Speaks lines of JSON: reads {"variant": name, "steps": n, "masked": bool} from standard input and answers
{"ms": [per-step times]}, so that the benchmark can interleave both sides in one run. The first line it writes names its
variants. Masked: masks are multiplied into all weights of more than one dimension after each step, in one call.
"""
import json
import math
import sys
import time

import torch
from networks import network
from torch.nn.functional import cross_entropy

PICTURES = ["eager-fp32-nchw", "eager-fp32-nhwc", "eager-bf16-nchw", "eager-bf16-nhwc", "compile-fp32-nchw", "compile-bf16-nhwc"]
VECTORS = ["eager", "compile"]
# On CUDA torch.compile records the step as a graph (reduce-overhead), which small networks need most.
PICTURES_CUDA = ["eager-fp32-nchw", "eager-bf16-nhwc", "compile-fp32-nchw", "compile-bf16-nhwc"]


def build(name, variant, optimiser_name, batch, shape, classes, device):
    pictures = not name.startswith("lenet")
    layout = torch.channels_last if variant.endswith("nhwc") else torch.contiguous_format
    model = network(name).train().to(device)
    if pictures:
        model = model.to(memory_format=layout)
    if optimiser_name == "adam":
        optimiser = torch.optim.Adam(model.parameters(), lr=1.2e-3, fused=True)
    else:
        decay = 1e-4 if pictures else 0
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=decay, fused=True)
    count = max(batch, 8000 * 3072 // math.prod(shape))
    images = torch.randint(0, 256, (count, *(shape if pictures else (784,))), dtype=torch.uint8, device=device)
    labels = torch.randint(0, classes, (count,), device=device)
    if variant.startswith("compile"):
        model = torch.compile(model, mode=None if device == "cpu" else "reduce-overhead")

    weights = [p for p in model.parameters() if p.dim() > 1]
    masks = [(torch.rand_like(w) < 0.5).to(w.dtype) for w in weights]

    def step(masked):
        # A batch out of resident bytes and its normalisation: what our step does too.
        rows = torch.randint(0, count, (batch,), device=device)
        x = images[rows].float().mul_(1 / 255)
        if pictures:
            x = x.to(memory_format=layout)
        y = labels[rows]
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled="bf16" in variant):
            logits = model(x)
            if isinstance(logits, tuple):
                loss = cross_entropy(logits[0], y) + 0.4 * cross_entropy(logits[1], y)
            else:
                loss = cross_entropy(logits, y)
        loss.backward()
        optimiser.step()
        if masked:
            with torch.no_grad():
                torch._foreach_mul_(weights, masks)
        return loss.item()  # ours looks at the loss of each step too

    return step


def main():
    options = json.loads(sys.argv[1])
    name, threads, batch, optimiser = options["network"], options["threads"], options["batch"], options["optimiser"]
    device = options["device"]
    pictures = PICTURES if device == "cpu" else PICTURES_CUDA
    names = options["variants"] or (VECTORS if name.startswith("lenet") else pictures)
    if device != "cpu":
        torch.cuda.set_device(torch.device(device).index or 0)
    torch.backends.cudnn.benchmark = True
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    variants = {}
    for variant in names:
        try:
            variants[variant] = build(name, variant, optimiser, batch, options["shape"], options["classes"], device)
            for _ in range(30 if name.startswith("lenet") else 3):
                variants[variant](False)
        except Exception as error:  # a machine without what torch.compile needs still has eager
            variants.pop(variant, None)
            print(f"{variant}: {error}"[:300], file=sys.stderr)
    print(json.dumps({"variants": list(variants), "torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        step = variants[request["variant"]]
        times = []
        for _ in range(request["steps"]):
            start = time.perf_counter()
            step(request["masked"])
            times.append((time.perf_counter() - start) * 1e3)
        print(json.dumps({"ms": times}), flush=True)


if __name__ == "__main__":
    main()
