"""A pipeline in Paddle Serving's words that has no model of its own: both of its Ops ask other servers.

Beside its imports nothing of it is asyncline's.
"""

import numpy as np

from asyncline.paddle import Op, WebService


class OpinionOp(Op):
    """Asks another pipeline."""

    def preprocess(self, input_dicts, data_id, log_id):
        ((_, input_dict),) = input_dicts.items()
        return {"words": input_dict["words"]}, False, None, ""


class ScoreOp(Op):
    """Asks a model."""

    def preprocess(self, input_dicts, data_id, log_id):
        ((_, input_dict),) = input_dicts.items()
        return {"x": np.array([[len(input_dict["words"]), 0, 0, 1]], np.float32)}, False, None, ""


class BothOp(Op):
    def preprocess(self, input_dicts, data_id, log_id):
        opinion, score = input_dicts["opinion"], input_dicts["score"]
        return {"opinion": opinion["prediction"][0], "score": str(score["y"].tolist())}, False, None, ""


class FrontService(WebService):
    def get_pipeline_response(self, read_op):
        opinion_op = OpinionOp(name="opinion", input_ops=[read_op])
        score_op = ScoreOp(name="score", input_ops=[read_op])
        return BothOp(name="both", input_ops=[opinion_op, score_op])


front_service = FrontService(name="front")
front_service.prepare_pipeline_config("config.yml")
front_service.run_service()
