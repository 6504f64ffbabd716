"""Scores of pruning at initialisation (paper 4.2) with PyTorch's own operations, in double precision.

Reads one JSON request from standard input:
  weights: path of a safetensors file; input: shape of an example; layers: as the addon is given them, with all
  defaults; auxiliary: [{layer, weight}]; prunable: names of the parameters that are scored
  images, labels: paths of IDX .gz files; mean, std: of x/255 (one channel); batches: list of lists of rows
Writes {method: {parameter: scores}}.
"""
import json
import sys

import torch
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, cross_entropy, linear, max_pool2d

from train_steps import idx, safetensors


def forward(network, p, x, training):
    """The logits of each head with the weight of its loss, the network's own first; nothing is dropped."""
    layers = network["layers"]
    values = {"input": x}
    for layer in layers:
        name, kind = layer["name"], layer["type"]
        x = values[layer["inputs"][0]]
        if kind == "flatten":
            x = x.flatten(1)
        elif kind == "linear":
            x = linear(x, p[name + ".weight"], p.get(name + ".bias"))
        elif kind == "relu":
            x = torch.relu(x)
        elif kind == "conv":
            x = conv2d(x, p[name + ".weight"], p.get(name + ".bias"), layer["stride"], layer["padding"])
        elif kind == "batchnorm":
            # PyTorch moves the statistics that it is given.
            mean, var = p[name + ".running_mean"].clone(), p[name + ".running_var"].clone()
            x = batch_norm(x, mean, var, p[name + ".weight"], p[name + ".bias"], training, 0.1, layer["epsilon"])
        elif kind == "maxpool":
            x = max_pool2d(x, layer["kernel"], layer["stride"], layer["padding"], ceil_mode=layer.get("ceil", False))
        elif kind == "avgpool":
            x = avg_pool2d(x, layer["kernel"], layer["stride"], layer["padding"])
        elif kind == "concat":
            x = torch.cat([values[one] for one in layer["inputs"]], 1)
        elif kind == "dropout":
            pass
        elif kind == "globalpool":
            x = x.mean((2, 3))
        elif kind == "add":
            x = sum(values[one] for one in layer["inputs"])
        else:
            raise ValueError(kind)
        values[name] = x
    return [(x, 1), *((values[one["layer"]], one["weight"]) for one in network["auxiliary"])]


def loss_of(heads, labels, temperature=1):
    return sum(weight * cross_entropy(logits / temperature, labels) for logits, weight in heads)


def main():
    torch.set_num_threads(1)
    request = json.load(sys.stdin)
    names = request["prunable"]
    weights = {name: torch.from_numpy(value).double() for name, value in safetensors(request["weights"]).items()}

    def leaves(of):
        p = {name: value.clone() for name, value in of.items()}
        return p, [p[name].requires_grad_(True) for name in names]

    answer = {"magnitude": [weights[name].abs() for name in names]}

    p, w = leaves({name: value.abs() for name, value in weights.items()})
    heads = forward(request, p, torch.ones(1, *request["input"], dtype=torch.float64), False)
    total = sum(logits.sum() for logits, _ in heads)
    answer["synflow"] = [(a * g).abs() for a, g in zip(w, torch.autograd.grad(total, w))]

    images, labels = idx(request["images"]), idx(request["labels"])
    for rows in request["batches"]:
        x = torch.from_numpy(images[rows].astype("float64") / 255.0).reshape(-1, *request["input"])
        x = (x - request["mean"]) / request["std"]
        y = torch.from_numpy(labels[rows].astype("int64"))
        p, w = leaves(weights)
        snip = [(a * g).abs() for a, g in zip(w, torch.autograd.grad(loss_of(forward(request, p, x, True), y), w))]
        loss = loss_of(forward(request, p, x, True), y, 200)
        g = torch.autograd.grad(loss, w, create_graph=True)
        hg = torch.autograd.grad(sum((one * one.detach()).sum() for one in g), w)
        grasp = [-a * h for a, h in zip(w, hg)]
        for method, values in {"snip": snip, "grasp": grasp, "grasp-abs": [one.abs() for one in grasp]}.items():
            before = answer.get(method, [0] * len(names))
            answer[method] = [a + b / len(request["batches"]) for a, b in zip(before, values)]

    out = {method: {n: v.flatten().tolist() for n, v in zip(names, values)} for method, values in answer.items()}
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
