"""What schemathesis has to know of this API beyond its description: how an archive is written."""

import io
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
