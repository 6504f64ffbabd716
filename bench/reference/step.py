"""The other side of the step benchmark: PyTorch's best ways to make one LeNet-300-100 step of batch 60.

Speaks lines of JSON: reads {"variant": name, "steps": n} from standard input and answers {"ms": [per-step times]},
so that the benchmark can interleave both sides in one run. The first line it writes names its variants.
"""
import json
import sys
import time

import torch


def build(variant, optimiser_name, batch):
    model = torch.nn.Sequential(
        torch.nn.Linear(784, 300), torch.nn.ReLU(), torch.nn.Linear(300, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10)
    )
    if optimiser_name == "adam":
        optimiser = torch.optim.Adam(model.parameters(), lr=1.2e-3, fused=True)
    else:
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    images = (torch.rand(8000, 784) * 255).to(torch.uint8)
    labels = torch.randint(0, 10, (8000,))

    def loss_of(x, y):
        return torch.nn.functional.cross_entropy(model(x), y)

    forward = torch.compile(loss_of) if variant == "compile" else loss_of

    def step(i):
        # A batch out of resident bytes and its normalisation: what our step does too.
        rows = torch.randint(0, 8000, (batch,))
        x = images[rows].float().mul_(1 / 255)
        y = labels[rows]
        optimiser.zero_grad(set_to_none=True)
        loss = forward(x, y)
        loss.backward()
        optimiser.step()
        return loss.item()  # ours looks at the loss of each step too

    return step


def main():
    threads, batch, optimiser = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    variants = {}
    for name in ("eager", "compile"):
        try:
            variants[name] = build(name, optimiser, batch)
            for i in range(30):
                variants[name](i)
        except Exception as error:  # a machine without what torch.compile needs still has eager
            variants.pop(name, None)
            print(f"{name}: {error}"[:300], file=sys.stderr)
    print(json.dumps({"variants": list(variants), "torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        step = variants[request["variant"]]
        times = []
        for i in range(request["steps"]):
            start = time.perf_counter()
            step(i)
            times.append((time.perf_counter() - start) * 1e3)
        print(json.dumps({"ms": times}), flush=True)


if __name__ == "__main__":
    main()
