"""The networks of ImageNet as PyTorch users write them, with torchvision's names: the other side of benchmarks and tests."""
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, max_pool2d, relu

RESNETS = {
    18: ([2, 2, 2, 2], False),
    34: ([3, 4, 6, 3], False),
    50: ([3, 4, 6, 3], True),
    101: ([3, 4, 23, 3], True),
    152: ([3, 8, 36, 3], True),
}


class Block(nn.Module):
    def __init__(self, channels, width, out, stride, bottleneck):
        super().__init__()
        shapes = [(channels, width, 3, stride), (width, out, 3, 1)]
        if bottleneck:
            shapes = [(channels, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        for i, (a, b, kernel, step) in enumerate(shapes, 1):
            self.add_module(f"conv{i}", nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(b))
        self.depth = len(shapes)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.depth:
                y = relu(y)
        return relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, depth, channels, classes):
        super().__init__()
        blocks, bottleneck = RESNETS[depth]
        self.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        last = 64
        for group, count in enumerate(blocks):
            width = 64 * 2**group
            out = 4 * width if bottleneck else width
            layers = []
            for block in range(count):
                layers.append(Block(last, width, out, 2 if group > 0 and block == 0 else 1, bottleneck))
                last = out
            self.add_module(f"layer{group + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(last, classes)

    def forward(self, x):
        x = max_pool2d(relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class Fire(nn.Module):
    def __init__(self, channels, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x):
        x = relu(self.squeeze(x))
        return torch.cat([relu(self.expand1x1(x)), relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    def __init__(self, version, channels, classes):
        super().__init__()
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        if version == "1_0":
            first = nn.Conv2d(channels, 96, 7, 2)
            rest = [pool, Fire(96, 16, 64), Fire(128, 16, 64), Fire(128, 32, 128)]
            rest += [pool, Fire(256, 32, 128), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256)]
            rest += [pool, Fire(512, 64, 256)]
        else:
            first = nn.Conv2d(channels, 64, 3, 2)
            rest = [pool, Fire(64, 16, 64), Fire(128, 16, 64), pool, Fire(128, 32, 128), Fire(256, 32, 128)]
            rest += [pool, Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)]
        self.features = nn.Sequential(first, nn.ReLU(), *rest)
        self.classifier = nn.Sequential(nn.Identity(), nn.Conv2d(512, classes, 1), nn.ReLU())

    def forward(self, x):
        return self.classifier(self.features(x)).mean((2, 3))


class Unit(nn.Module):
    def __init__(self, channels, out, kernel, stride=1, padding=0, momentum=0.1):
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=1e-3, momentum=momentum)

    def forward(self, x):
        return relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side: of (name, channels, kernel, stride), names of pools, and at an end a list that forks."""

    def __init__(self, channels, momentum, *branches):
        super().__init__()
        self.branches, self.out = branches, 0
        for branch in branches:
            last = channels
            for step in branch:
                ends = step if isinstance(step, list) else [step]
                width = 0
                for one in ends:
                    if isinstance(one, tuple):
                        name, out, kernel, *stride = one
                        padding = 0 if stride else tuple((k - 1) // 2 for k in kernel)
                        self.add_module(name, Unit(last, out, kernel, *(stride or [1]), padding, momentum))
                        width += out
                last = width or last
            self.out += last

    def forward(self, x):
        def run(step, y):
            if isinstance(step, list):
                return torch.cat([run(one, y) for one in step], 1)
            if step == "mean":
                return avg_pool2d(y, 3, 1, 1)
            return max_pool2d(y, 3, 2) if step == "max" else getattr(self, step[0])(y)

        outputs = []
        for branch in self.branches:
            y = x
            for step in branch:
                y = run(step, y)
            outputs.append(y)
        return torch.cat(outputs, 1)


class Auxiliary(nn.Module):
    def __init__(self, channels, classes, momentum):
        super().__init__()
        self.conv0 = Unit(channels, 128, 1, momentum=momentum)
        self.conv1 = Unit(128, 768, 5, momentum=momentum)
        self.fc = nn.Linear(768, classes)

    def forward(self, x):
        return self.fc(self.conv1(self.conv0(avg_pool2d(x, 5, 3))).mean((2, 3)))


class Inception(nn.Module):
    """In training mode with its auxiliary head, if it has one, a pair of logits."""

    def __init__(self, channels, classes, momentum, auxiliary=False):
        super().__init__()
        one, three, five, along, down = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)

        def chain(name, *steps):
            return [(f"{name}_{i}", *step) for i, step in enumerate(steps, 1)]

        def pool(out):
            return ["mean", ("branch_pool", out, one)]

        stem = [("1a_3x3", 32, 3, 2, 0), ("2a_3x3", 32, 3, 1, 0), ("2b_3x3", 64, 3, 1, 1), ("3b_1x1", 80, 1, 1, 0), ("4a_3x3", 192, 3, 1, 0)]
        last = channels
        for name, out, *window in stem:
            self.add_module(f"Conv2d_{name}", Unit(last, out, *window, momentum))
            last = out
        mixed = {}
        for letter, out in zip("bcd", (32, 64, 64)):
            mixed[f"5{letter}"] = (
                [("branch1x1", 64, one)],
                chain("branch5x5", (48, one), (64, five)),
                chain("branch3x3dbl", (64, one), (96, three), (96, three)),
                pool(out),
            )
        mixed["6a"] = ([("branch3x3", 384, three, 2)], chain("branch3x3dbl", (64, one), (96, three), (96, three, 2)), ["max"])
        for letter, c in zip("bcde", (128, 160, 160, 192)):
            mixed[f"6{letter}"] = (
                [("branch1x1", 192, one)],
                chain("branch7x7", (c, one), (c, along), (192, down)),
                chain("branch7x7dbl", (c, one), (c, down), (c, along), (c, down), (192, along)),
                pool(192),
            )
        mixed["7a"] = (
            chain("branch3x3", (192, one), (320, three, 2)),
            chain("branch7x7x3", (192, one), (192, along), (192, down), (192, three, 2)),
            ["max"],
        )
        for letter in "bc":
            mixed[f"7{letter}"] = (
                [("branch1x1", 320, one)],
                [("branch3x3_1", 384, one), [("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))]],
                chain("branch3x3dbl", (448, one), (384, three))
                + [[("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))]],
                pool(192),
            )
        self.mixed = [f"Mixed_{name}" for name in mixed]
        for name, branches in mixed.items():
            block = Mixed(last, momentum, *branches)
            self.add_module(f"Mixed_{name}", block)
            last = block.out
            if auxiliary and name == "6e":
                self.AuxLogits = Auxiliary(last, classes, momentum)
        self.fc = nn.Linear(last, classes)

    def forward(self, x):
        x = max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, 2)
        x = max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        auxiliary = None
        for name in self.mixed:
            x = getattr(self, name)(x)
            if self.training and name == "Mixed_6e" and hasattr(self, "AuxLogits"):
                auxiliary = self.AuxLogits(x)
        logits = self.fc(x.mean((2, 3)))
        return logits if auxiliary is None else (logits, auxiliary)
