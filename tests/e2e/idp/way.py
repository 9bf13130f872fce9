"""The way to the identity provider, as the stack has it to a place of `allow`: a listener that hands bytes on."""

import asyncio
import sys

PLACE = (sys.argv[1], int(sys.argv[2]))


async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything from one side to the other, until its end."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Both directions of one connection."""
    try:
        other_reader, other_writer = await asyncio.open_connection(*PLACE)
    except OSError:
        writer.close()
        return
    await asyncio.gather(hand_on(reader, other_writer), hand_on(other_reader, writer))


async def main() -> None:
    """Listen until the end."""
    async with await asyncio.start_server(meet, "0.0.0.0", PLACE[1]) as server:
        await server.serve_forever()


asyncio.run(main())
