"""A model of text for MLServer: padded token ids and their attention mask in, how many tokens it was shown out."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class CountingModel(MLModel):  # type: ignore[misc]
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        assert inputs["input_ids"].shape == inputs["attention_mask"].shape
        shown = inputs["attention_mask"].astype(np.int64).sum(axis=1, keepdims=True)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("shown", shown)])
