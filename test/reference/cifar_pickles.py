"""Writes CIFAR pickles as Python 2 did. Request: {"files": [{"path", "labels": {KEY: [..]}, "pictures": [[seed of one]],
"fortran": bool}]}; picture n of seed s has byte i = (s + i * 7) % 256. Answer: {}."""
import json
import pickle
import sys

import numpy as np


class Python2(pickle._Pickler):
    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, obj):
        data = obj if isinstance(obj, bytes) else obj.encode("latin1")
        n = len(data)
        self.write((b"U" + bytes([n]) if n < 256 else b"T" + n.to_bytes(4, "little")) + data)
        self.memoize(obj)

    dispatch[str] = save_string
    dispatch[bytes] = save_string

    def save_global(self, obj, name=None):
        module = obj.__module__.replace("numpy._core", "numpy.core")
        self.write(f"c{module}\n{name or obj.__name__}\n".encode())
        self.memoize(obj)


request = json.load(sys.stdin)
for file in request["files"]:
    images = np.array([[(seed + i * 7) % 256 for i in range(3072)] for seed in file["pictures"]], dtype=np.uint8)
    content = {
        "batch_label": "a batch",
        **file["labels"],
        "data": np.asfortranarray(images) if file["fortran"] else images,
        "filenames": [f"picture_{seed}.png" for seed in file["pictures"]],
    }
    with open(file["path"], "wb") as out:
        Python2(out, 2).dump(content)
    # It is what Python itself reads.
    with open(file["path"], "rb") as back:
        assert (pickle.load(back, encoding="latin1")["data"] == images).all()
print("{}")
