"""Colours distorted as the example of an epoch has them, in double precision and by the standard library's colour cone: numbers
drawn by Philox4x32-10 again, formulas of TensorFlow-slim's distort_color and of Google's for TPUs. Values of pixels must stay
positive where colorsys divides by them."""
import colorsys
import json
import sys

MASK = 0xFFFFFFFF


def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        x, y = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(y >> 32) ^ c[1] ^ k[0], y & MASK, (x >> 32) ^ c[3] ^ k[1], x & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


def words(o, layer):
    purpose = 4  # augmentation
    key = philox([o["replicate"], purpose, o["noise"] & MASK, o["noise"] >> 32], [o["seed"] & MASK, o["seed"] >> 32])[:2]
    return philox([o["example"] & MASK, o["example"] >> 32, o["epoch"], layer], key)


def between(low, high, word):
    return low + (high - low) * (word + 0.5) / 2**32


def brightness(pixels, delta):
    return [[c + delta for c in p] for p in pixels]


def saturation(pixels, scale):
    def one(p):
        h, s, v = colorsys.rgb_to_hsv(*p)
        return colorsys.hsv_to_rgb(h, min(max(s * scale, 0), 1), v)

    return [one(p) for p in pixels]


def hue(pixels, delta):
    def one(p):
        h, s, v = colorsys.rgb_to_hsv(*p)
        return colorsys.hsv_to_rgb((h + delta) % 1, s, v)

    return [one(p) for p in pixels]


def contrast(pixels, scale):
    means = [sum(p[c] for p in pixels) / len(pixels) for c in range(3)]
    return [[(c - m) * scale + m for c, m in zip(p, means)] for p in pixels]


ORDERS = [
    [brightness, saturation, hue, contrast],
    [saturation, brightness, contrast, hue],
    [contrast, hue, brightness, saturation],
    [hue, saturation, contrast, brightness],
]


def distorted(o):
    flat = [b / 255 for b in o["pixels"]]
    pixels = [flat[i : i + 3] for i in range(0, len(flat), 3)]
    w = words(o, 32)
    if o["colour"] == "inception":
        by = {
            brightness: between(-32 / 255, 32 / 255, w[0]),
            saturation: between(0.5, 1.5, w[1]),
            hue: between(-0.2, 0.2, w[2]),
            contrast: between(0.5, 1.5, w[3]),
        }
        for step in ORDERS[words(o, 33)[0] * 4 >> 32]:
            pixels = step(pixels, by[step])
    else:
        y, cb, cr = between(-32 / 255, 32 / 255, w[0]), between(-0.1, 0.1, w[1]), between(-0.1, 0.1, w[2])
        shift = [1.402 * cr + y, -0.344136 * cb - 0.714136 * cr + y, 1.772 * cb + y]
        pixels = [[c + s for c, s in zip(p, shift)] for p in pixels]
    return [255 * min(max(c, 0), 1) for p in pixels for c in p]


json.dump([distorted(one) for one in json.load(sys.stdin)], sys.stdout)
