"""Make `asyncline/wire/grpc/descriptors.py` from the .proto files beside it:
`python -m tests.wire.generate_grpc_descriptors`.

Wants `pip install grpcio-tools`, which nothing else does.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from base64 import b64encode
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet  # type: ignore[import-untyped]

FOLDER = Path(__file__).parents[2] / "asyncline" / "wire" / "grpc"
LINE = 112
FILES = ("health", "reflection")

HEAD = '''"""FileDescriptorProtos of the .proto files here, by `python -m tests.wire.generate_grpc_descriptors`."""

from base64 import b64decode
'''


def main() -> None:
    text = HEAD
    for name in FILES:
        with tempfile.NamedTemporaryFile() as out:
            protoc = [sys.executable, "-m", "grpc_tools.protoc"]
            subprocess.run([*protoc, f"-I{FOLDER}", f"-o{out.name}", f"{name}.proto"], check=True)
            (file,) = FileDescriptorSet.FromString(Path(out.name).read_bytes()).file
        data = b64encode(file.SerializeToString(deterministic=True)).decode()
        lines = "\n".join(f'    "{data[place : place + LINE]}"' for place in range(0, len(data), LINE))
        text += f"\n{name.upper()} = b64decode(\n{lines}\n)\n"
    (FOLDER / "descriptors.py").write_text(text)


if __name__ == "__main__":
    main()
