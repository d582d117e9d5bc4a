"""h2's connection, with what a server of many calls has to have otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings
from hpack import Encoder
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


class PlainEncoder(Encoder):
    """Writes headers as they are: Huffman's code in Python costs more than all else about an answer, and a table of
    earlier headers is of no use to ids and times.
    """

    def encode(self, headers: Iterable[tuple[bytes, bytes]], huffman: bool = False) -> bytes:  # type: ignore[override]
        block = bytearray()
        if self.header_table.resized:
            block += self._encode_table_size_change()
            self.header_table.resized = False
        for name, value in headers:
            if name == b":status" and value == b"200":
                block.append(0x88)
                continue
            block.append(0)
            _write_nbytes(block, len(name))
            block += name
            _write_nbytes(block, len(value))
            block += value
        return bytes(block)


def _write_nbytes(block: bytearray, nbytes: int) -> None:
    """RFC 7541 §5.1, with a prefix of seven bits."""
    if nbytes < 127:
        block.append(nbytes)
        return
    block.append(127)
    nbytes -= 127
    while nbytes >= 128:
        block.append(nbytes & 127 | 128)
        nbytes >>= 7
    block.append(nbytes)


class ServerConnection(H2Connection):
    """The server's end."""

    MAX_CLOSED_STREAMS = 1024  # in place of 65,536, of each connection

    def __init__(self, limits: CallLimits) -> None:
        super().__init__(_CONFIG)
        self.encoder = PlainEncoder()
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

    def window_of(self, stream_id: int) -> int:
        """How much may be written in one frame."""
        return min(self.local_flow_control_window(stream_id), self.max_outbound_frame_size)

    @property
    def unsent_nbytes(self) -> int:
        return len(self._data_to_send)

    def is_open(self, stream_id: int) -> bool:
        stream: Any = self.streams.get(stream_id)
        return stream is not None and not stream.closed
