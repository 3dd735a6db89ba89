"""A server that tells each client who it is and whom it sees: `echo.py NAME PORT [ADDRESS]`.

Every connection is answered with one JSON line {name, peer, sockname} and then echoes until it ends.
"""

import asyncio
import json
import sys


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection."""
    seen = {
        "name": sys.argv[1],
        "peer": writer.get_extra_info("peername")[0],
        "sockname": list(writer.get_extra_info("sockname")[:2]),
    }
    try:
        writer.write(json.dumps(seen).encode() + b"\n")
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main() -> None:
    """Serves until it is killed."""
    address = sys.argv[3] if len(sys.argv) > 3 else "0.0.0.0"
    server = await asyncio.start_server(serve, address, int(sys.argv[2]), backlog=4096)
    await server.serve_forever()


asyncio.run(main())
