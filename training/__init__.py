"""How the networks in `models/` are made; `CNNFashion` in `cnn_minst.py` puts the parts together.

In the order in which they read well:

    data.py                                 Fashion-MNIST; what is accepted as images and labels
    sizes.py      networks.py               the sizes, and the network of each
    recipe.py     recipes/                  how each is trained, as data
    train.py      checkpoint.py             the epochs; resuming after a stop
    augmentation.py                         altered training images
    optimizer.py                            Muon
    distillation.py                         learning from a larger network
    on_jax.py                               an epoch as one program, for a GPU
    export.py     quantization.py           the ONNX file, in 8 bits
    evaluation.py robustness.py             accuracy by class, calibration; shifted, noisy and blurred images
    speed.py                                images per second
    facts.py      card.py      pictures.py  the figures, and the pages made of them
    serving.py                              a `.keras` file behind `replier.py --runtime keras`

Nothing else of the project is imported here.
"""

import os

# Libraries read these on import, and the modules of this folder import them after these lines. No notes on how
# TensorFlow was built; and oneDNN's convolutions, which are off by default on a processor without AVX-512: with them
# a training takes half the time.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# ONNX Runtime's wheel for Linux would keep a file of usage data in the user's cache, and a thread for it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
