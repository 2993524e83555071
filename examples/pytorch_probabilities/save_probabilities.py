"""Needs torch and torchvision: run a trained model on a test folder and save what `evaluate_probabilities.py` reads.

    python save_probabilities.py densenet121.pt films/test test.npz

`films/test` has a folder for each class, as torchvision's ImageFolder wants it. `densenet121.pt` holds the
`state_dict` of the model that `network` builds.
"""

import re
import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch.utils.data import DataLoader
from torchvision import transforms

SIZE = 224
#: Searched in a file's name; its group is the patient. An image without one counts as a patient of its own.
PATIENT = re.compile(r"(person\d+)_")


def network(classes: int) -> torch.nn.Module:
    """The architecture that was trained, with one output a class."""
    model = torchvision.models.densenet121()
    model.classifier = torch.nn.Linear(model.classifier.in_features, classes)
    return model


def films(folder: Path) -> torchvision.datasets.ImageFolder:
    """The test images, prepared as they were for training."""
    prepare = transforms.Compose(
        [
            transforms.Grayscale(3),
            transforms.Resize((SIZE, SIZE)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    return torchvision.datasets.ImageFolder(str(folder), prepare)


@torch.no_grad()
def save(weights: Path, folder: Path, output: Path) -> None:
    """Write label (n,), probability (n, classes), patient (n,) and classes to an .npz."""
    test = films(folder)
    model = network(len(test.classes))
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    # Without eval() batch normalisation and dropout would go on as in training, and answers depend on the batch.
    model.eval()
    logits = torch.cat([model(batch) for batch, _ in DataLoader(test, batch_size=32)])
    names = [Path(path).name for path, _ in test.samples]
    found = [PATIENT.search(name) for name in names]
    np.savez(
        output,
        # Probabilities, not logits: the outputs of softmax, in the order of the classes.
        probability=logits.softmax(dim=1).numpy(),
        label=np.array(test.targets),
        patient=np.array([match.group(1) if match else "" for match in found]),
        classes=np.array(test.classes),
    )


if __name__ == "__main__":
    save(*map(Path, sys.argv[1:4]))
