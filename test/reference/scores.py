"""Scores of pruning at initialisation (paper 4.2) of a network of linear layers with ReLU between them."""
import json
import sys

import torch

request = json.load(sys.stdin)
weights = {
    name: torch.tensor(one["values"], dtype=torch.float64).reshape(one["shape"])
    for name, one in request["weights"].items()
}
layers = request["layers"]


def forward(parameters, x):
    for i, name in enumerate(layers):
        x = torch.nn.functional.linear(x, parameters[name + ".weight"], parameters[name + ".bias"])
        x = torch.relu(x) if i + 1 < len(layers) else x
    return x


def leaves(of):
    return {name: value.clone().requires_grad_(True) for name, value in of.items()}


def named(values):
    names = [name + ".weight" for name in layers]
    return {name: value.flatten().tolist() for name, value in zip(names, values)}


def ranked(parameters):
    return [parameters[name + ".weight"] for name in layers]


answer = {"magnitude": named([w.abs() for w in ranked(weights)])}

flow = leaves({name: w.abs() for name, w in weights.items()})
total = forward(flow, torch.ones(1, request["input"], dtype=torch.float64)).sum()
answer["synflow"] = named([(w * g).abs().detach() for w, g in zip(ranked(flow), torch.autograd.grad(total, ranked(flow)))])

if "batches" in request:
    sums = {}
    for batch in request["batches"]:
        x = torch.tensor(batch["x"], dtype=torch.float64).reshape(-1, request["input"])
        labels = torch.tensor(batch["labels"])
        p = leaves(weights)
        g = torch.autograd.grad(torch.nn.functional.cross_entropy(forward(p, x), labels), ranked(p))
        one = {"snip": [(w * d).abs().detach() for w, d in zip(ranked(p), g)]}
        loss = torch.nn.functional.cross_entropy(forward(p, x) / 200, labels)
        g = torch.autograd.grad(loss, ranked(p), create_graph=True)
        hg = torch.autograd.grad(sum((d * d.detach()).sum() for d in g), ranked(p))
        one["grasp"] = [(-w * h).detach() for w, h in zip(ranked(p), hg)]
        one["grasp-abs"] = [(w * h).abs().detach() for w, h in zip(ranked(p), hg)]
        for method, values in one.items():
            sums[method] = [a + b for a, b in zip(sums.get(method, [0] * len(values)), values)]
    for method, values in sums.items():
        answer[method] = named([v / len(request["batches"]) for v in values])

json.dump(answer, sys.stdout)
