"""A loop in Paddle Serving's words: square roots by Newton's method, one step a round.

Beside its imports nothing of it is asyncline's.
"""

from asyncline.paddle import Op, WebService


class StartOp(Op):
    def preprocess(self, input_dicts, data_id, log_id):
        ((_, input_dict),) = input_dicts.items()
        number = float(input_dict["number"])
        if number <= 0:
            return None, False, 51, "expected a number above 0"
        return {"number": number, "root": number, "rounds": 0}, False, None, ""


class StepOp(Op):
    def preprocess(self, input_dicts, data_id, log_id):
        ((_, input_dict),) = input_dicts.items()
        number, root = input_dict["number"], input_dict["root"]
        return (
            {"number": number, "root": (root + number / root) / 2, "rounds": input_dict["rounds"] + 1},
            False,
            None,
            "",
        )


class WhileOp(Op):
    def check_jumping(self, postped_data_dict):
        for channeldata in postped_data_dict.values():
            data = channeldata.parse()
            if abs(data["root"] ** 2 - data["number"]) > 1e-6:
                return True
        return False


class PrintOp(Op):
    def postprocess(self, input_dicts, fetch_dict, data_id, log_id):
        return {key: str(value) for key, value in fetch_dict.items()}, None, ""


class RootService(WebService):
    def get_pipeline_response(self, read_op):
        start_op = StartOp(name="start", input_ops=[read_op])
        step_op = StepOp(name="step", input_ops=[start_op])
        while_op = WhileOp(name="while", input_ops=[step_op], jump_to_ops=[start_op])
        return PrintOp(name="print", input_ops=[while_op])


root_service = RootService(name="root")
root_service.prepare_pipeline_config("config.yml")
root_service.run_service()
