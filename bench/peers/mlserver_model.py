"""The model as MLServer loads it: a custom inference runtime, named in `model-settings.json`.

It follows the page "Custom Inference Runtimes" of https://docs.seldon.ai/mlserver ; `mlserver.py`
has the server's settings.
"""

from __future__ import annotations

import base64

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from bench.references.onnx_model import OnnxModel


class Classifier(MLModel):  # type: ignore[misc]  # MLServer is not installed where types are checked
    """Takes packages as base64 and gives the labels and probabilities of their images."""

    async def load(self) -> bool:
        self._model = OnnxModel(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        answers = self._model.predict([base64.b64decode(text) for text in payload.inputs[0].data])
        shape = [len(answers), len(answers[0])]  # packages, images in each
        labels, probabilities = zip(*(image for package in answers for image in package), strict=True)
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                ResponseOutput(name="labels", shape=shape, datatype="BYTES", data=list(labels)),
                ResponseOutput(name="probabilities", shape=shape, datatype="FP32", data=list(probabilities)),
            ],
        )
