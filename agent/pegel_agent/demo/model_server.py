"""The demo's model behind a real HTTP server that speaks TensorFlow Serving's REST predict.

`python -m pegel_agent.demo.model_server PORT` learns from the recorded markets and serves until it is ended.
"""

import json
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pegel_agent.demo.housing import FEATURES, MODEL_NAME, Market, housing


def train(markets: tuple[Market, ...]) -> Any:
    """A scikit-learn classifier that says whether more homes will be sold in a year."""
    model = make_pipeline(StandardScaler(), LogisticRegression())
    return model.fit(np.array([market.features for market in markets]), [int(market.grew) for market in markets])


def predict(model: Any, features: Sequence[tuple[float, ...]]) -> list[int]:
    """0 or 1 for each row."""
    return [int(value) for value in model.predict(np.array(features))]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    model: Any = None

    def do_GET(self) -> None:
        if self.path == f"/v1/models/{MODEL_NAME}":
            self._answer(200, {"model_version_status": [{"version": "1", "state": "AVAILABLE"}]})
        else:
            self._answer(404, {"error": "Not found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != f"/v1/models/{MODEL_NAME}:predict":
            self._answer(404, {"error": "Not found"})
            return
        try:
            rows = [tuple(float(row[name]) for name in FEATURES) for row in json.loads(body)["instances"]]
            self._answer(200, {"predictions": predict(self.model, rows)})
        except (ValueError, KeyError, TypeError) as error:
            self._answer(400, {"error": f"Failed to process the instances: {error!r}"})

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet: the demo's terminal shows other things."""

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Learn, then serve on the port in the first argument."""
    _Handler.model = train(housing().training)
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()


if __name__ == "__main__":
    main()
