"""Reads what a run leaves behind with the libraries that others use: safetensors and pyarrow.

Reads one JSON request from standard input: {"safetensors": [paths], "arrow": path}. Writes for each safetensors file
its tensors' {name: [dtype, shape, sum]} and metadata, and for the Arrow file its columns as lists.
"""
import json
import sys

import pyarrow
import safetensors


def tensors(path):
    out = {}
    with safetensors.safe_open(path, framework="np") as file:
        for name in file.keys():
            values = file.get_tensor(name)
            out[name] = [str(values.dtype), list(values.shape), float(values.astype("float64").sum())]
        return {"tensors": out, "metadata": file.metadata()}


def main():
    request = json.load(sys.stdin)
    with pyarrow.OSFile(request["arrow"]) as source:
        table = pyarrow.ipc.open_file(source).read_all()
    json.dump({"files": [tensors(path) for path in request["safetensors"]], "metrics": table.to_pydict()}, sys.stdout)


if __name__ == "__main__":
    main()
