"""The IMDB example of Paddle Serving's documents: a bag of words beside a convolution, and their mean.

Beside its imports nothing of it has been changed for asyncline.
"""

import logging

import numpy as np
from imdb_reader import IMDBDataset

from asyncline.paddle import ChannelDataErrcode, Op, PipelineServer, RequestOp, ResponseOp, pipeline_service_pb2

_LOGGER = logging.getLogger()
user_handler = logging.StreamHandler()
user_handler.setLevel(logging.INFO)
user_handler.setFormatter(logging.Formatter("%(levelname)s %(asctime)s [%(filename)s:%(lineno)d] %(message)s"))
_LOGGER.addHandler(user_handler)


class ImdbRequestOp(RequestOp):
    def init_op(self):
        self.imdb_dataset = IMDBDataset()
        self.imdb_dataset.load_resource("imdb.vocab")

    def unpack_request_package(self, request):
        dictdata = {}
        for idx, key in enumerate(request.key):
            if key != "words":
                continue
            words = request.value[idx]
            word_ids, _ = self.imdb_dataset.get_words_and_label(words)
            word_len = len(word_ids)
            dictdata[key] = np.array(word_ids).reshape(word_len, 1)
            dictdata[f"{key}.lod"] = np.array([0, word_len])

        log_id = None
        if request.logid is not None:
            log_id = request.logid
        return dictdata, log_id, None, ""


class CombineOp(Op):
    def preprocess(self, input_data, data_id, log_id):
        combined_prediction = 0
        for op_name, data in input_data.items():
            _LOGGER.info("{}: {}".format(op_name, data["prediction"]))  # noqa: G001  # as in the documents
            combined_prediction += data["prediction"]
        data = {"prediction": combined_prediction / 2}
        return data, False, None, ""


class ImdbResponseOp(ResponseOp):
    # Here ImdbResponseOp is consistent with the default ResponseOp implementation
    def pack_response_package(self, channeldata):
        resp = pipeline_service_pb2.Response()
        resp.err_no = channeldata.error_code
        if resp.err_no == ChannelDataErrcode.OK.value:
            feed = channeldata.parse()
            # ndarray to string
            for name, var in feed.items():
                resp.value.append(var.__repr__())
                resp.key.append(name)
        else:
            resp.err_msg = channeldata.error_info
        return resp


read_op = ImdbRequestOp()


class BowOp(Op):
    def init_op(self):
        pass


class CnnOp(Op):
    def init_op(self):
        pass


bow_op = BowOp("bow", input_ops=[read_op])
cnn_op = CnnOp("cnn", input_ops=[read_op])
combine_op = CombineOp("combine", input_ops=[bow_op, cnn_op])

# fetch output of combine_op
response_op = ImdbResponseOp(input_ops=[combine_op])

server = PipelineServer()
server.set_response_op(response_op)
server.prepare_server("config.yml")
server.run_server()
