"""Makes a GGUF file from a safetensors file, so that the structure checks meet a real one. Usage: make_gguf.py IN OUT"""

import json
import struct
import sys

import gguf
import numpy

DTYPES = {"F32": numpy.float32, "F16": numpy.float16, "I64": numpy.int64, "I32": numpy.int32}


def main(source: str, target: str) -> None:
    with open(source, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    writer = gguf.GGUFWriter(target, "silero-vad")
    writer.add_name("silero_vad_16k")
    writer.add_uint32("silero-vad.sample_rate", 16000)
    for name, tensor in sorted(header.items()):
        if name == "__metadata__":
            continue
        start, end = tensor["data_offsets"]
        array = numpy.frombuffer(data[start:end], DTYPES[tensor["dtype"]])
        # GGUF has no tensor without a dimension.
        writer.add_tensor(name, array.reshape(tensor["shape"] or [1]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
