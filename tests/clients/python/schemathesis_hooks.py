"""What schemathesis has to know of this API beyond its description: how an archive is written, and how lines of JSON are read."""

import io
import json
import tarfile

import schemathesis


@schemathesis.serializer("application/x-tar")
def archive(context, value):
    """Bytes as they are, or as a file in a real archive: each for about half of the values."""
    data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
    if len(data) % 2:
        return data
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("thrown/at/it.bin")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


@schemathesis.deserializer("application/x-ndjson")
def lines(context, response):
    """Every line has to be JSON; one of them, another each time, is compared with its description."""
    events = [json.loads(line) for line in response.content.decode().splitlines()]
    if not events:
        raise ValueError("an answer of lines has none")
    return events[len(response.content) % len(events)]
