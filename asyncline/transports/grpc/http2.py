"""h2's connection, with what a server of many calls has to have otherwise."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings
from h2.stream import StreamInputs
from hyperframe.frame import GoAwayFrame

from asyncline.transports.grpc.limits import CallLimits

_CONFIG = H2Configuration(
    client_side=False,
    header_encoding=None,  # else h2 raises where a header is not of it
    validate_inbound_headers=False,  # half of the cost of a request; `head.py` takes what a call needs
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)
_DEFAULT_WINDOW_NBYTES = 65_535
_PREFIX = struct.Struct(">BHBBI")
_DATA, _HEADERS = 0, 1
_END_STREAM, _END_HEADERS = 1, 4
_STATUS_200 = b"\x88"


def _literal(text: bytes) -> bytes:
    """RFC 7541 §5.2, without Huffman's code: in Python that costs more than all else about an answer."""
    nbytes = len(text)
    if nbytes < 127:
        return bytes((nbytes,)) + text
    head = bytearray((127,))
    nbytes -= 127
    while nbytes >= 128:
        head.append(nbytes & 127 | 128)
        nbytes >>= 7
    head.append(nbytes)
    return bytes(head) + text


@lru_cache(maxsize=64)
def _name(text: str) -> bytes:
    return b"\0" + _literal(text.encode())


class ServerConnection(H2Connection):
    """The server's end."""

    MAX_CLOSED_STREAMS = 1024  # in place of 65,536, of each connection

    def __init__(self, limits: CallLimits) -> None:
        super().__init__(_CONFIG)
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: limits.max_streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_nbytes,
                SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_window_nbytes,
                SettingCodes.MAX_FRAME_SIZE: limits.frame_nbytes,
            },
        )
        self.decoder.max_header_list_size = limits.header_nbytes
        self.max_inbound_frame_size = limits.frame_nbytes
        self._window_nbytes = limits.window_nbytes

    def begin(self) -> None:
        """Say the settings."""
        self.initiate_connection()
        self.increment_flow_control_window(self._window_nbytes - _DEFAULT_WINDOW_NBYTES)

    @property
    def open_inbound_streams(self) -> int:
        """None, as far as h2 is concerned: it would go through all of them for each new one, and break the connection
        off where there are too many, while the settings that say how many are still on their way.
        """
        return 0

    def forget_closed(self) -> None:
        """What h2 does each time that it counts the open streams."""
        self._open_streams(1)

    def leave(self, error_code: int = 0, reason: bytes = b"") -> None:
        """Say GOAWAY. Unlike `close_connection`, this leaves the calls that are open as they are."""
        frame = GoAwayFrame(
            0, last_stream_id=self.highest_inbound_stream_id, error_code=error_code, additional_data=reason
        )
        self._prepare_for_sending([frame])

    # h2 writes by a frame object, a header table and several copies for each frame, which is a third of a small call.
    # What follows writes what it would write, and tells its state machines so.

    def write_headers(self, stream_id: int, headers: Iterable[tuple[str, str]], *, end: bool) -> None:
        """Headers of an answer, or its trailers. None is put into the table of headers: what differs from call to call
        is of no use there, and the rest is short.
        """
        state = self.streams[stream_id].state_machine
        state.process_input(StreamInputs.SEND_HEADERS)
        if end:
            state.process_input(StreamInputs.SEND_END_STREAM)
        table = self.encoder.header_table
        block = b""
        if table.resized:  # the client said so, and has to hear it
            block = self.encoder._encode_table_size_change()
            table.resized = False
        for name, value in headers:
            block += _STATUS_200 if name == ":status" and value == "200" else _name(name) + _literal(value.encode())
        flags = _END_HEADERS | _END_STREAM if end else _END_HEADERS
        self._data_to_send += _PREFIX.pack(0, len(block), _HEADERS, flags, stream_id) + block

    def write_data(self, stream_id: int, data: bytes | memoryview) -> None:
        """:param data: not more than `window_of`."""
        nbytes = len(data)
        self.streams[stream_id].outbound_flow_control_window -= nbytes
        self.outbound_flow_control_window -= nbytes
        self._data_to_send += _PREFIX.pack(nbytes >> 16, nbytes & 0xFFFF, _DATA, 0, stream_id)
        self._data_to_send += data

    def window_of(self, stream_id: int) -> int:
        """How much may be written in one frame."""
        return min(self.local_flow_control_window(stream_id), self.max_outbound_frame_size)

    @property
    def unsent_nbytes(self) -> int:
        return len(self._data_to_send)

    def is_open(self, stream_id: int) -> bool:
        stream: Any = self.streams.get(stream_id)
        return stream is not None and not stream.closed
