"""The reference of the parity tests: the same steps with PyTorch's own modules and optimisers.

Reads a JSON list of requests from standard input, each:
  images, labels: paths of IDX .gz files; mean, std: of x/255 (one channel)
  weights: path of a safetensors file with fcN.weight / fcN.bias
  batches: list of lists of rows of the images; optimiser: {type, learningRate, ...}; dtype
  masks: path of a safetensors BOOL file, or null
Writes for each the mean loss of every batch before its update to standard output.
"""
import gzip
import json
import struct
import sys

import numpy as np
import torch


def idx(path):
    with gzip.open(path, "rb") as f:
        data = f.read()
    dims = data[3]
    shape = struct.unpack(">" + "I" * dims, data[4 : 4 + 4 * dims])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape)


def safetensors(path):
    with open(path, "rb") as f:
        (size,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(size))
        body = f.read()
    kinds = {"F32": np.float32, "F64": np.float64, "BOOL": np.bool_}
    out = {}
    for name, t in header.items():
        if name == "__metadata__":
            continue
        first, last = t["data_offsets"]
        out[name] = np.frombuffer(body[first:last], kinds[t["dtype"]]).reshape(t["shape"]).copy()
    return out


def train(request):
    dtype = {"fp32": torch.float32, "fp64": torch.float64}[request["dtype"]]
    images, labels = idx(request["images"]), idx(request["labels"])
    tensors = safetensors(request["weights"])
    names = sorted({n.split(".")[0] for n in tensors if n.startswith("fc")}, key=lambda n: int(n[2:]))
    layers = []
    for name in names:
        k, c = tensors[name + ".weight"].shape
        linear = torch.nn.Linear(c, k).to(dtype)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(tensors[name + ".weight"]))
            linear.bias.copy_(torch.from_numpy(tensors[name + ".bias"]))
        layers += [linear, torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])
    masks = safetensors(request["masks"]) if request.get("masks") else {}
    masked = [(layers[2 * i].weight, torch.from_numpy(masks[n + ".weight"])) for i, n in enumerate(names) if masks]

    def apply_masks():
        with torch.no_grad():
            for w, m in masked:
                w.mul_(m)

    o = request["optimiser"]
    if o["type"] == "sgd":
        optimiser = torch.optim.SGD(
            model.parameters(),
            lr=o["learningRate"],
            momentum=o["momentum"],
            nesterov=o["nesterov"],
            weight_decay=o["weightDecay"],
        )
    elif o["type"] == "rmsprop":
        optimiser = RMSProp(model.parameters(), o)
    else:
        optimiser = torch.optim.Adam(
            model.parameters(),
            lr=o["learningRate"],
            betas=(o["beta1"], o["beta2"]),
            eps=o["epsilon"],
            weight_decay=o["weightDecay"],
        )
    losses = []
    apply_masks()
    for rows in request["batches"]:
        x = torch.from_numpy(images[rows].astype(np.float64) / 255.0)
        x = ((x - request["mean"]) / request["std"]).to(dtype).flatten(1)
        y = torch.from_numpy(labels[rows].astype(np.int64))
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
        apply_masks()
        losses.append(loss.item())
    return losses


class RMSProp:
    """TensorFlow's: means of squares begin at 1, epsilon is under the root, the rate is in the momentum."""

    def __init__(self, parameters, o):
        self.o = {"decay": 0.9, "momentum": 0, "weightDecay": 0, **o}
        self.all = [(p, torch.ones_like(p), torch.zeros_like(p)) for p in parameters]

    def zero_grad(self):
        for p, _, _ in self.all:
            p.grad = None

    def step(self):
        o = self.o
        with torch.no_grad():
            for p, square, momentum in self.all:
                decays = o.get("decayed", "all") == "all" or p.dim() > 1
                g = p.grad + o["weightDecay"] * p if decays else p.grad
                square.copy_(o["decay"] * square + (1 - o["decay"]) * g * g)
                momentum.copy_(o["momentum"] * momentum + o["learningRate"] * g / torch.sqrt(square + o["epsilon"]))
                p.sub_(momentum)


def main():
    torch.set_num_threads(1)
    json.dump([train(request) for request in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
