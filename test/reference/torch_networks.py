"""The reference of the networks of the catalogue: plain torch.nn modules with torchvision's names.

Reads a JSON list of requests from standard input, each:
  network: {kind: "resnet" | "vgg" | ..., and what the module is made with}; dtype: "fp32" | "fp64"
  weights: path of a safetensors file with parameters and running statistics by name
  gradients, after: paths of safetensors files of ours: gradients on `train`, and the state after one update there
  pictures: path of raw bytes (N,C,H,W); shape: (C,H,W); labels; mean, std of x/255, one per channel
  train: rows of the training batch; evaluate, alone: rows
Writes for each to standard output:
  names: parameters in the module's own order; loss, correct: of `train`, in training mode
  gradients: relative L2 distance of ours by parameter name; statistics: the same of the running statistics afterwards,
    where a mean is measured against the deviation of what it is a mean of, too: it may be zero but for rounding
  probabilities: log-softmax of each picture of `evaluate`, in eval mode before the update
  alone: softmax of each picture of `alone` as a batch of one, in training mode
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from train_steps import safetensors

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench" / "reference"))
import imagenet  # noqa: E402 (those of the benchmarks)
from networks import ResNet, Vgg  # noqa: E402

KINDS = {
    "resnet": ResNet,
    "vgg": Vgg,
    "imagenet-resnet": imagenet.ResNet,
    "squeezenet": imagenet.SqueezeNet,
    "inception": imagenet.Inception,
}


def load(model, tensors):
    """By name, and all of them: a name too many or too few is an error."""
    counters = {name: value for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")}
    model.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()} | counters)


def distances(ours, theirs, scales):
    """|| ours - theirs || over a scale, by name."""
    assert all(ours[name].shape == tuple(value.shape) for name, value in theirs.items())
    return {name: float(np.linalg.norm(ours[name] - value.numpy()) / scales[name]) for name, value in theirs.items()}


def answer(request):
    dtype = {"fp32": torch.float32, "fp64": torch.float64}[request["dtype"]]
    network = request["network"]
    model = KINDS[network.pop("kind")](**network).to(dtype)
    load(model, safetensors(request["weights"]))
    pictures = np.fromfile(request["pictures"], np.uint8).reshape(-1, *request["shape"])
    mean, std = (np.array(request[key]).reshape(1, -1, 1, 1) for key in ("mean", "std"))
    x = torch.from_numpy((pictures / 255.0 - mean) / std).to(dtype)
    y = torch.tensor(request["labels"])
    out = {"names": [name for name, _ in model.named_parameters()]}
    rows = request["train"]
    with torch.no_grad():
        model.eval()
        out["probabilities"] = torch.log_softmax(model(x[request["evaluate"]]), 1).tolist()
        model.train()
        state = {name: value.clone() for name, value in model.state_dict().items()}
        out["alone"] = [torch.softmax(model(x[row : row + 1])[0], 0).tolist() for row in request["alone"]]
        model.load_state_dict(state)
    logits = model(x[rows])
    loss = cross_entropy(logits, y[rows])
    loss.backward()
    out["loss"], out["correct"] = loss.item(), int((logits.argmax(1) == y[rows]).sum())
    gradients = {n: p.grad for n, p in model.named_parameters()}
    scales = {n: g.norm() for n, g in gradients.items()}
    out["gradients"] = distances(safetensors(request["gradients"]), gradients, scales)
    running = {n: b for n, b in model.named_buffers() if "running" in n}
    scales = {
        n: (running[n.replace("mean", "var")].sum() + b.square().sum()).sqrt() if n.endswith("mean") else b.norm()
        for n, b in running.items()
    }
    out["statistics"] = distances(safetensors(request["after"]), running, scales)
    return out


def main():
    torch.set_num_threads(1)
    json.dump([answer(request) for request in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
