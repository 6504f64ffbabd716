"""Saves state dicts of plain torch.nn modules with torchvision's names, as people do.

Reads a JSON list of requests from standard input, each: {"kind": "resnet" | "squeezenet" | "inception", "arguments", "path",
"dtype", "module": whether names begin with "module."}. Writes for each, by name, what double precision makes of the tensor:
its sum, the sum of its squares, and its last element.
"""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench" / "reference"))
import imagenet  # noqa: E402 (those of the benchmarks)

KINDS = {"resnet": imagenet.ResNet, "squeezenet": imagenet.SqueezeNet, "inception": imagenet.Inception}


def answer(request):
    torch.manual_seed(5)
    model = KINDS[request["kind"]](**request["arguments"]).to(getattr(torch, request["dtype"]))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_mean", "running_var")):
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    prefix = "module." if request["module"] else ""
    save_file({prefix + name: tensor for name, tensor in state.items()}, request["path"])
    return {
        name: [tensor.double().sum().item(), tensor.double().square().sum().item(), tensor.flatten()[-1].item()]
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }


json.dump([answer(request) for request in json.load(sys.stdin)], sys.stdout)
