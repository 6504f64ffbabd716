"""The networks of CIFAR-10 as PyTorch users write them, with torchvision's names, and all networks by name: the other side of
benchmarks and tests."""
import imagenet
from torch import nn
from torch.nn.functional import relu

VGG = {
    11: [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512],
    13: [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512],
    16: [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512],
    19: [64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512],
}


class Block(nn.Module):
    def __init__(self, channels, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = nn.Sequential()
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)), inplace=True)))
        return relu(y + self.downsample(x), inplace=True)


class ResNet(nn.Module):
    """He et al. 2016, section 4.2, with projections as shortcuts where the width changes."""

    def __init__(self, depth, width=1, classes=10):
        super().__init__()
        widths = [round(16 * 2**group * width) for group in range(3)]
        channels = widths[0]
        self.conv1 = nn.Conv2d(3, channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        for group, out in enumerate(widths):
            blocks = []
            for block in range((depth - 2) // 6):
                blocks.append(Block(channels, out, 2 if group > 0 and block == 0 else 1))
                channels = out
            self.add_module(f"layer{group + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Vgg(nn.Module):
    def __init__(self, depth, width=1, classes=10):
        super().__init__()
        layers, channels = [], 3
        for item in VGG[depth]:
            if item == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            out = round(item * width)
            layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
            channels = out
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x):
        return self.classifier(nn.functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


class LeNet(nn.Sequential):
    def __init__(self, *widths):
        layers, last = [], 784
        for width in widths:
            layers += [nn.Linear(last, width), nn.ReLU()]
            last = width
        super().__init__(*layers, nn.Linear(last, 10))


def network(name):
    """Of a name: lenet-300-100, resnet-20, resnet-20-w0.5-c100, vgg-19, resnet50, squeezenet1_0-c10, inception_v3."""
    kind, *words = name.split("-")
    options = {"w": ("width", float), "c": ("classes", int), "s": ("size", int)}
    numbers = [int(word) for word in words if word[0] not in options]
    named = {options[word[0]][0]: options[word[0]][1](word[1:]) for word in words if word[0] in options}
    made = {"lenet": LeNet, "resnet": ResNet, "vgg": Vgg}.get(kind)
    if made:
        return made(*numbers, **named)
    classes = named.get("classes", 1000)
    if kind == "inception_v3":
        return imagenet.Inception(3, classes, momentum=0.004, auxiliary=True)
    if kind.startswith("squeezenet"):
        return imagenet.SqueezeNet(kind.removeprefix("squeezenet"), 3, classes)
    return imagenet.ResNet(int(kind.removeprefix("resnet")), 3, classes)
