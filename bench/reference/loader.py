"""The other side of the loader benchmark: PyTorch's DataLoader over the same files, by torchvision's decoder or Pillow's.

Speaks lines of JSON: says which variants there are, reads {variant, passes} and answers with seconds. Workers live on
between passes; what comes out is bytes, (N,3,S,S), as on our side.
"""
import json
import os
import sys
import time

import torch
from torch.utils.data import DataLoader, Dataset

options = json.loads(sys.argv[1])
versions = {"torch": torch.__version__}
variants = {}

try:
    import torchvision
    from torchvision.transforms import v2

    versions["torchvision"] = torchvision.__version__
    transform = v2.Compose([v2.RandomResizedCrop(options["size"], antialias=True), v2.RandomHorizontalFlip()])

    class Tensors(Dataset):
        def __len__(self):
            return len(options["files"])

        def __getitem__(self, i):
            data = torchvision.io.read_file(options["files"][i])
            return transform(torchvision.io.decode_image(data, mode=torchvision.io.ImageReadMode.RGB))

    variants["torchvision"] = Tensors

    import PIL
    from PIL import Image

    versions["Pillow"] = PIL.__version__
    from_pillow = v2.Compose([v2.RandomResizedCrop(options["size"]), v2.RandomHorizontalFlip(), v2.PILToTensor()])

    class Pictures(Dataset):
        def __len__(self):
            return len(options["files"])

        def __getitem__(self, i):
            with open(options["files"][i], "rb") as file:
                return from_pillow(Image.open(file).convert("RGB"))

    variants["pillow"] = Pictures
except ImportError:
    pass

loaders = {}


def loader(name):
    if name not in loaders:
        loaders[name] = DataLoader(variants[name](), batch_size=options["batch"], shuffle=True,
                                   num_workers=options["workers"], persistent_workers=True)
    return loaders[name]


def measure(name, passes):
    start = time.perf_counter()
    count = 0
    for _ in range(passes):
        for batch in loader(name):
            count += len(batch)
    return {"seconds": time.perf_counter() - start, "images": count}


print(json.dumps({"variants": list(variants), "versions": versions, "python": sys.version.split()[0], "pid": os.getpid()}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps(measure(request["variant"], request["passes"])), flush=True)
