"""A model that is loaded once, before the first call: is a text spam?

With `ready_on: startup` in the environment of stack.yaml, the function is not ready before the model is loaded, so that
no call waits for it.
"""

import json
import math
from pathlib import Path

MODEL = {}


def startup(context):
    """Load the model. A large one is read here too: pickle, ONNX, or what your library has."""
    MODEL.update(json.loads((Path(__file__).parent / "weights.json").read_text()))


def handle(event, context):
    text = event.text
    return {"spam": round(probability(features(text)), 3)}


def features(text):
    """Return what the model knows of a text."""
    letters = [letter for letter in text if letter.isalpha()]
    capitals = sum(map(str.isupper, letters)) / len(letters) if letters else 0
    return {"links": text.count("http"), "capitals": capitals, "exclamations": text.count("!")}


def probability(values):
    """Return the logistic regression's probability."""
    score = MODEL["bias"] + sum(MODEL["weights"][name] * value for name, value in values.items())
    return 1 / (1 + math.exp(-score)) if score > -700 else 0.0  # exp(710) is more than a float holds
