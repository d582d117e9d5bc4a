"""Make `asyncline/wire/oip/descriptor.py` from the .proto beside it: `python -m tests.wire.generate_oip_descriptor`.

Wants `pip install grpcio-tools`, which nothing else does.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from base64 import b64encode
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet  # type: ignore[import-untyped]

FOLDER = Path(__file__).parents[2] / "asyncline" / "wire" / "oip"
LINE = 112

TEXT = '''"""open_inference.proto as a FileDescriptorProto, by `python -m tests.wire.generate_oip_descriptor`."""

from base64 import b64decode

DESCRIPTOR = b64decode(
{lines}
)
'''


def main() -> None:
    with tempfile.NamedTemporaryFile() as out:
        protoc = [sys.executable, "-m", "grpc_tools.protoc"]
        subprocess.run([*protoc, f"-I{FOLDER}", f"-o{out.name}", "open_inference.proto"], check=True)
        (file,) = FileDescriptorSet.FromString(Path(out.name).read_bytes()).file
    data = b64encode(file.SerializeToString(deterministic=True)).decode()
    lines = "\n".join(f'    "{data[place : place + LINE]}"' for place in range(0, len(data), LINE))
    (FOLDER / "descriptor.py").write_text(TEXT.format(lines=lines))


if __name__ == "__main__":
    main()
