"""The same as a service of Paddle Serving's, by its own classes."""

from typing import Any

from asyncline.paddle import Op, WebService
from loadtest.paddle_graph import CONCURRENCY


class EchoOp(Op):
    def preprocess(self, input_dicts: Any, data_id: int = 0, log_id: int = 0) -> Any:
        ((_, values),) = input_dicts.items()
        return {"text": values["text"], "scores": values["scores"]}, False, None, ""


class EchoService(WebService):
    def get_pipeline_response(self, read_op: Any) -> Any:
        return EchoOp(name="echo", input_ops=[read_op])


service = EchoService(name="echo")
service.prepare_pipeline_config(yml_dict={"http_port": 18080, "op": {"echo": {"concurrency": CONCURRENCY}}})
