"""Pillow's pixels of the same files: whole, and cropped and resized. Reads ours from files and answers how far they are apart."""
import json
import sys

import numpy as np
from PIL import Image

request = json.load(sys.stdin)


def difference(ours, theirs):
    off = np.abs(ours.astype(np.int32) - theirs.astype(np.int32))
    return {"mean": float(off.mean()), "max": int(off.max())}


def read(path, shape):
    return np.fromfile(path, dtype=np.uint8).reshape(shape)


answers = []
for one in request["pictures"]:
    with Image.open(one["path"]) as file:
        picture = file.convert("RGB")
    answer = {"size": [picture.height, picture.width]}
    answer["whole"] = difference(read(one["whole"], (picture.height, picture.width, 3)), np.asarray(picture))
    answer["crops"] = []
    for crop in one["crops"]:
        box, size = crop["box"], crop["size"]
        edges = [box["left"], box["top"], box["left"] + box["width"], box["top"] + box["height"]]
        how = Image.Resampling.BICUBIC if crop["filter"] == "bicubic" else Image.Resampling.BILINEAR
        if crop["cut"]:
            square = picture.crop([int(edge) for edge in edges]).resize((size, size), how)
        else:
            edges[2], edges[3] = min(edges[2], picture.width), min(edges[3], picture.height)
            square = picture.resize((size, size), how, box=edges)
        if crop["flip"]:
            square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        answer["crops"].append(difference(read(crop["pixels"], (size, size, 3)), np.asarray(square)))
    answers.append(answer)
json.dump(answers, sys.stdout)
